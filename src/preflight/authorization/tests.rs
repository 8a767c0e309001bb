use super::*;

fn template(url: &str, params: &[(&str, Value)]) -> Template {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Template {
        auth_mode: "OAUTH2".into(),
        authorization_url: url.into(),
        authorization_params: Value::Object(params.collect()),
        disable_pkce: true.into(),
        ..Template::default()
    }
}

fn app() -> App {
    App { client_id: "an id".into(), scopes: Some("a, b".into()), link: None }
}

fn settings(params: &[(&str, &str)]) -> IntegrationSettings {
    let params = params.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    IntegrationSettings { params: params.collect(), ..IntegrationSettings::default() }
}

fn built(template: &Template, settings: &IntegrationSettings) -> Result<String, String> {
    offline(template, &app(), settings, "https://c.example/cb")
}

fn host(url: &str, params: &[(&str, &str)]) -> Result<String, String> {
    let url = built(&template(url, &[]), &settings(params))?;
    Ok(url.split_once('?').unwrap().0.to_owned())
}

#[test]
fn a_template_is_filled() {
    let template = template(
        "https://${connectionConfig.subdomain}.p.example/auth?x=1",
        &[("access_type", "offline".into()), ("prompt", "consent".into())],
    );
    let mut settings = IntegrationSettings::default();
    let missing = offline(&template, &app(), &settings, "https://c.example/cb").unwrap_err();
    assert_eq!(missing, "it needs `subdomain`");
    settings.params.insert("subdomain".into(), "acme".into());
    settings.authorization_params.insert("prompt".into(), "none".into());
    let url = offline(&template, &app(), &settings, "https://c.example/cb").unwrap();
    let (before, after) = url.split_once("&state=").unwrap();
    assert_eq!(
        before,
        "https://acme.p.example/auth?x=1&client_id=an+id\
         &redirect_uri=https%3A%2F%2Fc.example%2Fcb&response_type=code"
    );
    assert_eq!(after.split_once('&').unwrap().1, "scope=a+b&access_type=offline&prompt=none");
}

#[test]
fn the_first_alternative_that_can_be_filled_is_used() {
    let url = "https://${connectionConfig.host}/auth || https://login.p.example/auth";
    assert_eq!(host(url, &[]).unwrap(), "https://login.p.example/auth");
    assert_eq!(host(url, &[("host", "a.example")]).unwrap(), "https://a.example/auth");
    assert_eq!(host(url, &[("host", "")]).unwrap(), "https://login.p.example/auth");
    // Not the other server: users of this value would not be sent there.
    assert!(host(url, &[("host", "a.example/x")]).is_err());
    let inside = "https://p.${connectionConfig.tld || connectionConfig.region || com}/auth";
    assert_eq!(host(inside, &[]).unwrap(), "https://p.com/auth");
    assert_eq!(host(inside, &[("region", "eu")]).unwrap(), "https://p.eu/auth");
    let both = "https://${connectionConfig.a} || https://${connectionConfig.b}";
    assert_eq!(host(both, &[]).unwrap_err(), "it needs `a`");
}

#[test]
fn the_url_is_rewritten_as_nango_does() {
    let random = "https://p.example/${random}/auth";
    let (one, other) = (host(random, &[]).unwrap(), host(random, &[]).unwrap());
    assert!(one != other && one.starts_with("https://p.example/") && !one.contains("//auth"));

    let mut template = template("https://p.example/auth", &[]);
    template.authorization_url_fragment = "/oauth/authorize".into();
    template.authorization_url_replacements =
        serde_json::json!({ "client_id=": "clientId=", "scope=": "scopes=", "x": 1 });
    let url = built(&template, &settings(&[])).unwrap();
    assert!(
        url.starts_with("https://p.example/auth#/oauth/authorize?clientId=an+id&redirect_uri="),
        "{url}"
    );
    assert!(url.ends_with("&scopes=a+b"), "{url}");

    let mut empty = App { client_id: "id".into(), scopes: None, link: None };
    let with = |template: &Template, app: &App| {
        offline(template, app, &settings(&[]), "https://c.example/cb").unwrap()
    };
    template.authorization_url_fragment = Value::Null;
    assert!(with(&template, &empty).ends_with("&scopes="));
    template.authorization_url_skip_empty = true.into();
    assert!(!with(&template, &empty).contains("scope"));
    template.disable_pkce = Value::Null;
    let url = with(&template, &empty);
    let challenge = url.split_once("code_challenge=").unwrap().1.split('&').next().unwrap();
    assert_eq!((challenge.len(), url.contains("code_challenge_method=S256")), (43, true));

    template.authorization_url = "${connectionConfig.appPublicLink}/installations/new".into();
    empty.link = Some("https://p.example/apps/mine".into());
    let url = with(&template, &empty);
    assert!(url.starts_with("https://p.example/apps/mine/installations/new?"), "{url}");
}

#[test]
fn settings_mean_the_same_as_in_nango() {
    let mut template = template("https://p.example/auth", &[]);
    let mut settings = settings(&[("oauth_scopes_override", "c,d")]);
    settings.user_scope = Some("users".into());
    let url = built(&template, &settings).unwrap();
    assert!(url.contains("&scope=c+d") && !url.contains("users"), "{url}");
    template.name = "slack".into();
    let url = built(&template, &settings).unwrap();
    assert!(url.contains("&scope=c+d&") && url.contains("&user_scope=users"), "{url}");
    settings.params.insert("oauth_client_id_override".into(), "theirs".into());
    assert!(built(&template, &settings).unwrap().contains("client_id=theirs"));
}

#[test]
fn a_value_cannot_send_requests_to_another_host() {
    let url = "https://${connectionConfig.x}.p.example/auth";
    for value in ["acme", "a-b.c_d", "EU1"] {
        assert!(host(url, &[("x", value)]).is_ok(), "{value}");
    }
    for value in [
        "evil.example/",
        "evil.example#",
        "evil.example?",
        "user@evil.example",
        "a b",
        "a\tb",
        ".",
        "..",
        ".a",
        "a.",
        "a..b",
        "evil.example\\",
        "evil.example:80",
        "a\u{200b}b",
        "%2f",
        "[::1]",
        "127.0.0.1",
        "a/../b",
    ] {
        let why = host(url, &[("x", value)]).unwrap_err();
        assert!(why.contains("`x`") && !why.contains("evil"), "{value}: {why}");
    }
    let whole = "https://${connectionConfig.x}/auth";
    for value in ["gitlab.example.com", "gitlab.example.com:8443", "10.1.2.3"] {
        assert!(host(whole, &[("x", value)]).is_ok(), "{value}");
    }
    for value in ["a@b", "a:b", "a:1:2", "a:", ":1", "a/b", "a?b", "a#b"] {
        assert!(host(whole, &[("x", value)]).is_err(), "{value}");
    }
    let path = "https://p.example/${connectionConfig.x}/auth";
    assert!(host(path, &[("x", "tenant-1")]).is_ok());
    for value in ["..", "a/../b", "a?b", "a#b", "a\\b"] {
        assert!(host(path, &[("x", value)]).is_err(), "{value}");
    }
    let base = "${connectionConfig.x}/auth";
    assert!(host(base, &[("x", "https://a.example/b")]).is_ok());
    for value in ["a.example", "file:///etc", "https://u@a.example", "https://a.example?x="] {
        assert!(host(base, &[("x", value)]).is_err(), "{value}");
    }
    // The value of a parameter is encoded.
    let template = template("https://p.example/auth", &[("t", "${connectionConfig.x}".into())]);
    let url = built(&template, &settings(&[("x", "a&client_id=b#")])).unwrap();
    assert!(url.ends_with("&t=a%26client_id%3Db%23"), "{url}");
}

#[test]
fn only_values_that_the_template_names_are_copied() {
    let template: Template = serde_json::from_value(serde_json::json!({
        "authorization_url": "https://${connectionConfig.a || connectionConfig.b}.p.example",
        "authorization_params": { "x": "${connectionConfig.c}" },
        "token_url": { "OAUTH2": "https://${connectionConfig.d}" },
        "token_params": { "y": "${connectionConfig.clientSecret}" },
        "connection_config": { "e": {}, "pin": { "secret": true }, "jwtToken": {} },
    }))
    .unwrap();
    let names: Vec<_> = named_values(&template).into_iter().collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[test]
fn the_redirect_uri_is_found_by_value_otherwise_by_name() {
    let old = "https://api.nango.dev/oauth/callback";
    let encoded: String = byte_serialize(old.as_bytes()).collect();
    for (query, found) in [
        (format!("?weird={encoded}"), Some(old)),
        (format!("#/auth?x=1&redirectUri={encoded}"), Some(old)),
        ("?redirect_url=https%3A%2F%2Fother.example%2F".into(), Some("https://other.example/")),
        ("?oauth_token=1".into(), None),
    ] {
        let url = format!("https://p.example/auth{query}");
        assert_eq!(redirect_uri(&url, &[old]).as_deref(), found, "{url}");
    }
}

#[test]
fn urls_differ_by_endpoint_or_client_id() {
    let exact = template("https://p.example/a", &[]);
    let same = |one, other| difference(&exact, one, other).is_none();
    assert!(same("https://p.example/a?client_id=1&x=2", "https://p.example/a?client_id=1"));
    assert!(!same("https://p.example/a?client_id=1", "https://p.example/a?client_id=2"));
    assert!(!same("https://p.example/a", "https://p.example/b"));
    assert!(!same("https://p.example/a", "https://q.example/a"));
    // What only Nango knows is no difference.
    assert!(same("https://p.example/a?client_id=1", "https://p.example/a?client_id="));
    for url in ["https://${connectionConfig.x}.example/a", "https://a.example || https://p.example"]
    {
        let template = template(url, &[]);
        let difference = difference(&template, "https://p.example/a", "https://q.example/a");
        assert_eq!(difference, None, "{url}");
    }
}
