//! A server that is given no certificate: it makes one, serves it, and keeps it.

use crate::common::{Cluster, wait_for};
use http::StatusCode;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_certificate_makes_one_and_keeps_it() {
    let cluster = Cluster::new();
    let dir = cluster.dir.path().join("run/kubernetes");
    let (cert, key) = (dir.join("apiserver.crt"), dir.join("apiserver.key"));
    let flag = format!("--cert-dir={}", dir.display());
    // Any address: the certificate is for localhost too.
    let (without, with) = (["--tls-", "--bind-address"], [flag.as_str(), "--bind-address=0.0.0.0"]);
    let server = cluster.launch(&without, &with);
    wait_for("the pair", || async { key.exists() }).await;
    // The certificate comes with the authority that signed it, which clients are to trust.
    let made = std::fs::read_to_string(&cert).expect("readable");
    let authority = &made[made.rfind("-----BEGIN").expect("PEM")..];
    let trusted = cluster.dir.path().join("ca.crt");
    let before = std::fs::read_to_string(&trusted).expect("readable");
    std::fs::write(&trusted, before + authority).expect("written");
    let admin = cluster.client(&server, Some("admin"));
    server.ready(&admin).await;
    assert_eq!(admin.get("/api/v1/nodes").await.expect("an answer").status, StatusCode::OK);
    server.finish().await;

    let server = cluster.launch(&without, &with);
    server.ready(&cluster.client(&server, Some("admin"))).await;
    assert_eq!(std::fs::read_to_string(&cert).expect("readable"), made);
    server.finish().await;
}
