use axum::Router;
use axum::extract::{RawForm, RawQuery};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

pub fn nango_callback<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        // @EACH@
        .route("@PATH@", redirect_to("@TARGET@"))
        // @END@
}

/// The query as received (`Query` would have to be encoded again, which changes it), then the form.
fn redirect_to<S: Clone + Send + Sync + 'static>(target: &'static str) -> MethodRouter<S> {
    get(move |RawQuery(query)| async move {
        redirect(StatusCode::PERMANENT_REDIRECT, target, query.unwrap_or_default())
    })
    // `RawForm` refuses other content types.
    .post(move |RawQuery(query), RawForm(form)| async move {
        let parts = [query.unwrap_or_default(), String::from_utf8_lossy(&form).into_owned()];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        redirect(StatusCode::SEE_OTHER, target, parts.join("&"))
    })
}

fn redirect(status: StatusCode, target: &str, query: String) -> Response {
    let location = if query.is_empty() { target.to_owned() } else { format!("{target}?{query}") };
    (status, [(LOCATION, location), (CACHE_CONTROL, "no-store".to_owned())]).into_response()
}
