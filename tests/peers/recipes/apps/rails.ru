require "rails"
require "action_controller/railtie"
require_relative "lib/nango_callback"

class App < Rails::Application
  config.root = __dir__
  config.load_defaults 6.1
  config.eager_load = false
  config.secret_key_base = "a secret"
  config.middleware.insert_before 0, NangoCallback
end
App.initialize!
run App
