use super::connect;
use std::net::SocketAddr;

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    pub(crate) async fn read(admin: SocketAddr) -> Self {
        let reply = connect(admin).await.get("/metrics").await.expect("no metrics");
        assert_eq!(reply.status, 200);
        Self(String::from_utf8(reply.body).unwrap())
    }

    /// The value of a series, `name{label="value"}`, without the prefix `callback_edge_`.
    pub(crate) fn get(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series} in:\n{}", self.0))
    }

    pub(crate) fn find(&self, series: &str) -> Option<f64> {
        self.0.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let name = name.strip_prefix("callback_edge_").unwrap_or(name);
            (name == series).then(|| value.parse().unwrap())
        })
    }

    /// Open connections in any state.
    pub(crate) fn connections(&self) -> f64 {
        ["handshake", "active", "idle"]
            .iter()
            .map(|state| self.get(&format!("connections{{state=\"{state}\"}}")))
            .sum()
    }
}
