//! The callback is broken: by DNS, by a certificate, by a proxy, at Nango.

use super::site::{Front, Nango, Site};
use super::watch::Watch;
use super::{assert_explained, assert_runbook, explain, last_event};
use crate::support::until;

const ALERT: &str = "CallbackEdgeSelfCheckFailed";

/// `warn`, because users of a real callback could not reach its loopback address (`dns.public`).
const WORKS: &str = "callback_edge_self_check_verdict{verdict=\"warn\"} == 1";

/// Waits for the page; asserts that the alert and the log name this check, and that its section contains the fix.
async fn assert_paged(site: &Site, watch: &Watch, check: &str, fix: &str) {
    let alert = watch.fires(ALERT).await;
    assert_eq!(alert["labels"]["severity"], "page");
    assert_runbook(&alert, "Run `callback-edge explain ID`");
    let description = alert["annotations"]["description"].as_str().unwrap();
    assert!(description.contains(check), "{description}");
    let event = last_event(&site.edge.stderr(), "self_check");
    assert_eq!(event["level"], "WARN", "{event}");
    assert!(event["failed"].as_str().unwrap().contains(check), "{event}");
    let id = event["failed"].as_str().unwrap().split(' ').next().unwrap();
    assert!(
        event["hint"].as_str().unwrap().contains(&format!("callback-edge explain {id}")),
        "{event}"
    );
    assert_explained(&explain(check), fix);
}

/// Waits for the end of the page, and for the event that reports the recovery.
async fn assert_recovered(site: &Site, watch: &Watch) {
    watch.is_silent().await;
    let event = last_event(&site.edge.stderr(), "self_check");
    assert!(event["level"] == "INFO" && event["failed_for_s"].is_u64(), "{event}");
}

#[tokio::test]
async fn a_broken_callback_pages_with_the_failed_check_until_it_is_fixed() {
    let mut site = Site::open().await;
    let watch = Watch::of(site.edge.admin[0]).await;
    watch.observes(WORKS).await;

    // The record leads to a machine where no server listens.
    site.point("127.66.0.1");
    assert_paged(
        &site,
        &watch,
        "dns.reach",
        "Remove the records of addresses that do not serve the callback",
    )
    .await;
    site.point("127.0.0.1");
    assert_recovered(&site, &watch).await;

    site.front(Front::WrongCertificate);
    assert_paged(&site, &watch, "tls.name", "Add the host to the names of the certificate").await;
    site.front(Front::Correct);
    assert_recovered(&site, &watch).await;

    site.front(Front::Reencoding);
    assert_paged(&site, &watch, "redirect.encoding", "Do not parse the query and rebuild it").await;
    site.front(Front::Correct);
    assert_recovered(&site, &watch).await;

    site.nango(Nango::Other);
    assert_paged(&site, &watch, "nango.end_to_end", "Compare the host and the path of the target")
        .await;
    site.nango(Nango::Correct);
    assert_recovered(&site, &watch).await;
}

/// The callback may work: users are not helped by a page.
#[tokio::test]
async fn a_nango_that_is_out_of_reach_is_unknown_and_does_not_page() {
    let site = Site::open().await;
    let watch = Watch::of(site.edge.admin[0]).await;
    watch.observes(WORKS).await;
    site.nango(Nango::Overloaded);
    watch.observes("callback_edge_self_check_verdict{verdict=\"unknown\"} == 1").await;
    // Longer than the `for` of the page.
    watch.scrapes(12).await;
    assert_eq!(watch.fired().await.len(), 0, "{:?}", watch.fired().await);
    until("an event", async || site.edge.stderr().contains("\"verdict\":\"unknown\"")).await;
    let event = last_event(&site.edge.stderr(), "self_check");
    assert_eq!((&event["level"], &event["verdict"]), (&"INFO".into(), &"unknown".into()));
    assert_explained(&explain("nango.end_to_end"), "Unknown means that");
}
