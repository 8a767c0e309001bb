mod nango_callback;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::var("PORT").expect("PORT is set");
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("a free port");
    let app = axum::Router::new().merge(nango_callback::nango_callback());
    axum::serve(listener, app).await.expect("a server");
}
