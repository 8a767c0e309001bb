require_relative "nango_callback"
use NangoCallback
run ->(_env) { [404, {}, []] }
