//! Who tokens belong to that this server did not issue, and those that live in Secrets, over HTTPS.

use std::path::PathBuf;

use crate::common::extension::Extension;
use crate::common::{Client, Cluster, Server, wait_for};
use http::StatusCode;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Who the server takes the bearer of a token for; the code if for nobody.
async fn who(cluster: &Cluster, server: &Server, token: &str) -> Result<Value, StatusCode> {
    let client: Client = cluster.client(server, None).with_header("authorization", format!("Bearer {token}"));
    let answer = client.json("POST", WHO, &json!({})).await;
    match answer.status {
        StatusCode::CREATED => Ok(answer.body["status"]["userInfo"].clone()),
        code => Err(code),
    }
}

fn write(cluster: &Cluster, name: &str, text: &str) -> String {
    let path: PathBuf = cluster.dir.path().join(name);
    std::fs::write(&path, text).expect("write");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_knows_tokens_that_the_server_does_not() {
    let cluster = Cluster::new();
    let hook = Extension::start(&cluster, |seen| {
        let known = seen.body["spec"]["token"] == "abc";
        let status = if known {
            json!({"authenticated": true, "user": {"username": "hooked", "uid": "7", "groups": ["g"]}})
        } else {
            json!({"authenticated": false, "error": "never heard of it"})
        };
        (200, json!({"apiVersion": seen.body["apiVersion"], "kind": "TokenReview", "status": status}))
    })
    .await;
    let kubeconfig = format!(
        "current-context: x\nclusters: [{{name: c, cluster: {{server: 'https://localhost:{}/authenticate', certificate-authority: ca.crt}}}}]\n\
         users: [{{name: u, user: {{token: word}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n",
        hook.port
    );
    let file = write(&cluster, "hook.conf", &kubeconfig);
    let server = cluster
        .server(&[
            &format!("--authentication-token-webhook-config-file={file}"),
            "--authentication-token-webhook-version=v1",
        ])
        .await;
    for _ in 0..2 {
        let user = who(&cluster, &server, "abc").await.expect("is known");
        assert_eq!(
            (&user["username"], &user["uid"], &user["groups"]),
            (&json!("hooked"), &json!("7"), &json!(["g", "system:authenticated"]))
        );
    }
    let seen = hook.seen();
    assert_eq!(seen.len(), 1, "the second answer is remembered");
    assert_eq!(seen[0].body["spec"]["audiences"], json!(["https://test"]));
    assert_eq!(
        (seen[0].path(), &seen[0].headers["authorization"]),
        ("/authenticate", &"Bearer word".parse().expect("a value"))
    );
    assert_eq!(who(&cluster, &server, "other").await, Err(StatusCode::UNAUTHORIZED));
    let admin = cluster.client(&server, Some("admin"));
    let reviewed = admin.json("POST", REVIEWS, &json!({"spec": {"token": "other"}})).await;
    assert!(
        reviewed.body["status"]["error"].as_str().is_some_and(|text| text.contains("never heard of it")),
        "{reviewed:?}"
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_provider_make_users_by_its_configuration() {
    let cluster = Cluster::new();
    let key = |id: &str| {
        let pem = rcgen::KeyPair::generate().expect("key").serialize_pem();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key");
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a key");
        jwk.common.key_id = Some(id.to_owned());
        (key, jwk)
    };
    let ((first, first_jwk), (second, second_jwk)) = (key("one"), key("two"));
    let shown = std::sync::Arc::new(parking_lot::Mutex::new(vec![first_jwk]));
    let keys = std::sync::Arc::clone(&shown);
    let provider = Extension::start(&cluster, move |seen| {
        let issuer = format!("https://{}", seen.headers["host"].to_str().expect("text"));
        match seen.path() {
            "/.well-known/openid-configuration" => {
                (200, json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
            }
            _ => (200, json!({"keys": *keys.lock()})),
        }
    })
    .await;
    let issuer = format!("https://localhost:{}", provider.port);
    let ca = std::fs::read_to_string(cluster.dir.path().join("ca.crt")).expect("read");
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer, "audiences": ["kube", "other"], "audienceMatchPolicy": "MatchAny", "certificateAuthority": ca},
            "claimMappings": {"username": {"expression": "'oidc:' + claims.sub"}, "groups": {"claim": "roles", "prefix": "r:"}},
            "claimValidationRules": [{"expression": "claims.tenant == 'a'", "message": "wrong tenant"}],
            "userValidationRules": [{"expression": "!user.username.startsWith('oidc:system')", "message": "reserved"}],
        }],
        "anonymous": {"enabled": true, "conditions": [{"path": "/readyz"}]},
    });
    let file = write(&cluster, "authn.yaml", &configuration.to_string());
    let server = cluster.server(&[&format!("--authentication-config={file}")]).await;
    let end = jiff::Timestamp::now().as_second() + 600;
    let token = |key: &EncodingKey, id: &str, changes: Value| {
        let mut claims =
            json!({"iss": issuer, "aud": "kube", "sub": "me", "tenant": "a", "roles": ["x"], "exp": end});
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.to_owned());
        jsonwebtoken::encode(&header, &claims, key).expect("a token")
    };
    let user = who(&cluster, &server, &token(&first, "one", json!({}))).await.expect("is known");
    assert_eq!(user["username"], "oidc:me");
    assert_eq!(user["groups"], json!(["r:x", "system:authenticated"]));
    for changes in [
        json!({"tenant": "b"}),
        json!({"aud": "third"}),
        json!({"exp": end - 1200}),
        json!({"sub": "system:x"}),
    ] {
        let refused = who(&cluster, &server, &token(&first, "one", changes.clone())).await;
        assert_eq!(refused, Err(StatusCode::UNAUTHORIZED), "{changes}");
    }
    assert_eq!(
        who(&cluster, &server, &token(&second, "one", json!({}))).await,
        Err(StatusCode::UNAUTHORIZED)
    );
    // A key that the provider has only now.
    shown.lock().push(second_jwk);
    let newer = token(&second, "two", json!({}));
    wait_for("the new key", || async { who(&cluster, &server, &newer).await.is_ok() }).await;
    let nobody = cluster.client(&server, None);
    assert_eq!(nobody.get("/readyz").await.expect("an answer").status, StatusCode::OK);
    assert_eq!(nobody.get("/version").await.expect("an answer").status, StatusCode::UNAUTHORIZED);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_secret_is_good_while_it_is_there() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let account = json!({"metadata": {"name": "robot"}});
    let account = admin.json("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await;
    let uid = account.body["metadata"]["uid"].clone();
    let pem = std::fs::read(cluster.dir.path().join("sa.key")).expect("read");
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot",
        "kubernetes.io/serviceaccount/namespace": "default", "kubernetes.io/serviceaccount/secret.name": "robot-token",
        "kubernetes.io/serviceaccount/service-account.name": "robot", "kubernetes.io/serviceaccount/service-account.uid": uid,
    });
    let key = EncodingKey::from_ec_pem(&pem).expect("a key");
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).expect("a token");
    assert_eq!(who(&cluster, &server, &token).await, Err(StatusCode::UNAUTHORIZED));
    let secret = json!({"type": "kubernetes.io/service-account-token", "stringData": {"token": token},
        "metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}}});
    let made = admin.json("POST", "/api/v1/namespaces/default/secrets", &secret).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    wait_for("the secret in the cache", || async { who(&cluster, &server, &token).await.is_ok() }).await;
    let user = who(&cluster, &server, &token).await.expect("is known");
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(user["uid"], uid);
    let path = "/api/v1/namespaces/default/secrets/robot-token";
    wait_for("the day of the last use", || async {
        let secret = admin.get(path).await.expect("an answer").body;
        secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string()
    })
    .await;
    // Such a token says nothing of audiences: it is meant for this server alone.
    let review = |audience: &str| json!({"spec": {"token": token, "audiences": [audience]}});
    let ours = admin.json("POST", REVIEWS, &review("https://test")).await.body;
    assert_eq!(ours["status"]["audiences"], json!(["https://test"]));
    let others = admin.json("POST", REVIEWS, &review("https://other")).await.body;
    assert!(others["status"].get("authenticated").is_none(), "{others}");
    admin.delete(path).await;
    wait_for("the end of the token", || async { who(&cluster, &server, &token).await.is_err() }).await;
    server.finish().await;
}
