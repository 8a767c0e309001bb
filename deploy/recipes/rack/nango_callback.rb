# Redirects the callback and passes other requests on.
class NangoCallback
  TARGETS = {
    # @EACH@
    "@PATH@" => "@TARGET@",
    # @END@
  }.freeze

  def initialize(app)
    @app = app
  end

  def call(env)
    target = TARGETS[env["PATH_INFO"]]
    return @app.call(env) unless target

    form = env["REQUEST_METHOD"] == "POST" &&
           env["CONTENT_TYPE"].to_s.start_with?("application/x-www-form-urlencoded")
    return [405, {}, []] unless form || %w[GET HEAD].include?(env["REQUEST_METHOD"])

    # The query as received: `params` would have to be encoded again, which changes it.
    query = [env["QUERY_STRING"], form ? env["rack.input"]&.read(100_000) : nil].compact.reject(&:empty?).join("&")
    # Servers do not check headers: a form must not add lines to the response.
    return [400, {}, []] if query.b.match?(/[\x00-\x20\x7f]/n)

    location = query.empty? ? target : "#{target}?#{query}"
    [form ? 303 : 308, { "location" => location, "cache-control" => "no-store" }, []]
  end
end
