# Callbacks in Rack. The first segment of the path selects one.

require "rack"

NO_STORE = { "Cache-Control" => "no-store" }.freeze

run(lambda do |env|
  _, variant, *flow = env["PATH_INFO"].split("/")
  target = "https://api.nango.dev/#{flow.join('/')}"
  raw = env["QUERY_STRING"].empty? ? "" : "?#{env['QUERY_STRING']}"
  request = Rack::Request.new(env)
  case variant
  when "correct" then [308, { "Location" => target + raw }.merge(NO_STORE), []]
  when "moved" then [301, { "Location" => target + raw }, []]
  when "built" then [308, { "Location" => "#{target}?#{Rack::Utils.build_nested_query(request.GET)}" }.merge(NO_STORE), []]
  when "picked"
    query = Rack::Utils.build_query(request.GET.slice("code", "state", "error"))
    [308, { "Location" => "#{target}?#{query}" }.merge(NO_STORE), []]
  when "cookie"
    response = Rack::Response.new([], 308, { "Location" => target + raw }.merge(NO_STORE))
    response.set_cookie("_session", { value: "1", path: "/" })
    response.finish
  else [404, {}, []]
  end
end)
