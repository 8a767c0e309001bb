//! Words and phrases of pages: refused redirect URIs, unknown clients, errors, logins, bot walls.
//!
//! Phrases are in the form of [`canonical`] text, so that one spelling matches all.

/// The text in lower case, without quotation marks, with one space between words, and with one name
/// for the redirect URI.
pub(super) fn canonical(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '`' | '\\' | '“' | '”' | '„' | '‘' | '’' | '«' | '»' => {}
            '_' | '-' => plain.push(' '),
            other => plain.extend(other.to_lowercase()),
        }
    }
    let mut plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in REDIRECT_URI_NAMES {
        if plain.contains(name) {
            plain = plain.replace(name, "redirect uri");
        }
    }
    plain
}

/// Other names of the redirect URI.
const REDIRECT_URI_NAMES: &[&str] = &[
    "redirecturi",
    "redirect url",
    "redirecturl",
    "redirection uri",
    "redirection url",
    "callback uri",
    "callback url",
    "callbackurl",
    "reply url",
    "return url",
    "weiterleitungs uri",
    "weiterleitungs url",
    "umleitungs uri",
    "uri de redirection",
    "url de redirection",
    "uri de redireccionamiento",
    "url de redireccionamiento",
    "uri de redirección",
    "uri de redirecionamento",
    "url de redirecionamento",
    "uri di reindirizzamento",
    "リダイレクト uri",
    "リダイレクトuri",
    "リダイレクト url",
    "リダイレクトurl",
    "コールバックurl",
    "重定向 uri",
    "重定向uri",
    "重定向地址",
    "回调地址",
    "回调url",
    "重新導向 uri",
];

/// In an error response this name alone shows that the redirect URI is the reason.
pub(super) const REDIRECT_URI: &str = "redirect uri";

/// Phrases for an unregistered redirect URI, which no page contains for another reason.
pub(super) const MISMATCH: &[&str] = &[
    "redirect uri mismatch",
    "mismatching redirect uri",
    "invalid redirect uri",
    "incorrect redirect uri",
    "unknown redirect uri",
    "unauthorized redirect uri",
    "unregistered redirect",
    "invalid parameter: redirect uri",
    "redirect uri is invalid",
    "redirect uri not allowed",
    "redirect uri is not allowed",
    "redirect uri not match",
    "redirect uri did not match",
    "redirect uri didnt match",
    "redirect uri does not match",
    "redirect uri doesnt match",
    "redirect uri provided does not match",
    "redirect uri must match",
    "redirect uri not registered",
    "redirect uri is not registered",
    "redirect uri has not been registered",
    "redirect uri is not associated",
    "redirect uri is not whitelisted",
    "redirect uri is not valid",
    "redirect uri included is not valid",
    "redirect uri is not supported by client",
    "redirect uri query parameter value is invalid",
    "redirect uri ist ungültig",
    "ungültige redirect uri",
    "redirect uri stimmt nicht",
    "redirect uri invalide",
    "redirect uri non valide",
    "redirect uri ne correspond pas",
    "redirect uri no válid",
    "redirect uri no coincide",
    "redirect uri inválid",
    "redirect uri não corresponde",
    "redirect uriが無効",
    "redirect uri が無効",
    "redirect uriが一致しません",
    "redirect uri が一致しません",
    "redirect uri不匹配",
    "redirect uri 不匹配",
    "redirect uri无效",
    "redirect uri 无效",
    "aadsts50011",
];

/// Phrases for an unknown or disabled client (RFC 6749 §5.2).
pub(super) const BAD_CLIENT: &[&str] = &[
    "invalid client",
    "unauthorized client",
    "unknown client",
    "client is invalid",
    "client not found",
    "client does not exist",
    "client is disabled",
    "client disabled",
    "application is disabled",
    "application has been disabled",
    "application not found",
    "unknown application",
    "invalid application",
    "aadsts700016",
];

/// Words of pages that reject a redirect URI.
pub(super) const ERROR_WORDS: &[&str] = &["redirect", "callback", "registered", "whitelist"];

/// Those that pages without an error do not contain; a line for each language.
pub(super) const CLEAR_ERROR_WORDS: &[&str] = &[
    "mismatch",
    "invalid",
    "error", // English; `error` is Spanish too
    "fehler",
    "ungültig", //
    "erreur",
    "invalide", //
    "inválid",
    "erro",     // Spanish, Portuguese, Italian
    "ongeldig", //
    "błąd",
    "nieprawidłow", //
    "ошибк",
    "недопустим",
    "неверн",   //
    "geçersiz", //
    "エラー",
    "無効",
    "一致しません", //
    "错误",
    "錯誤",
    "无效",
    "無效",
    "不匹配", //
    "오류",
    "잘못된", //
];

/// Values of parameters that show an error.
pub(super) const ERROR_VALUES: &[&str] = &["error", "invalid", "failed", "failure"];

/// Segments of paths that lead to a login.
pub(super) const LOGIN_PATHS: &[&str] = &[
    "login",
    "log-in",
    "log_in",
    "logon",
    "signin",
    "sign-in",
    "sign_in",
    "sso",
    "authenticate",
    "identifier",
    "interaction",
];

/// First labels of hosts that serve logins.
pub(super) const LOGIN_HOSTS: &[&str] = &["login", "signin", "accounts", "sso"];

/// Attributes of login forms, without quotation marks.
pub(super) const LOGIN_FORMS: &[&str] = &[
    "type=password",
    "type=email",
    "name=username",
    "name=identifier",
    "name=email",
    "autocomplete=username",
    "autocomplete=email",
];

/// Visible phrases of bot walls. A page that only includes the script of a captcha is none.
pub(super) const WALLS: &[&str] = &[
    "just a moment...",
    "attention required!",
    "checking your browser",
    "are you a robot",
    "i am not a robot",
    "verify you are human",
    "verify that you are human",
    "verifying you are human",
    "unusual traffic",
    "pardon our interruption",
    "enable javascript and cookies to continue",
];

/// In pages of challenges only.
pub(super) const CHALLENGES: &[&str] = &["cf_chl_opt", "captcha-delivery.com", "px-captcha"];

/// In pages of challenges, and of sites that a bot wall protects: a challenge only as an error.
pub(super) const REFUSED_CHALLENGES: &[&str] =
    &["challenge-platform", "_incapsula_", "captcha", "cf-chl"];
