//! What probes ask a member for, with alarms and without a leader: `/health` as etcd 3.5.1 answers it, `/livez` and `/readyz` as etcd 3.5.11 has them.

use coracle_tests::member::{Member, SOON};
use coracle_tests::store::Program;
use coracle_tests::wait::wait_for;

const BOTH: [Program; 2] = [Program::EtcdLite, Program::Etcd35];

#[test]
fn an_alarm_makes_a_member_unhealthy_unless_it_is_excluded() {
    let answers = BOTH.map(|program| {
        let member = Member::start(program, &["--quota-backend-bytes=100000"]);
        wait_for("the quota is reached", SOON, || {
            let ran = member.etcdctl(&["put", "k", &"x".repeat(20_000)]);
            if ran.stderr.contains("database space exceeded") { Ok(()) } else { Err(ran.stderr) }
        });
        ["/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/health?exclude=CORRUPT"].map(
            |path| {
                let answer = member.get(path);
                (path, answer.status, answer.body.trim().to_owned())
            },
        )
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].each_ref().map(|(_, status, _)| *status), [503, 503, 200, 503]);
}

#[test]
fn a_member_without_a_majority_is_alive_and_not_ready() {
    let answers = BOTH.map(|program| {
        let mut members = [Member::prepare(program), Member::prepare(program)];
        let [m, n] = members.each_ref().map(Member::peer_url);
        let cluster = format!("--initial-cluster=m={m},n={n}");
        members[0].launch(&[&cluster]);
        members[1].launch(&[&cluster, "--name=n"]);
        members.iter().for_each(Member::wait_healthy);
        members[1].stop();
        let member = &members[0];
        let health = wait_for("it has no leader", SOON, || match member.get("/health") {
            answer if answer.body.contains("LEADER") => Ok((answer.status, answer.body.trim().to_owned())),
            answer => Err(answer.body),
        });
        if program == Program::EtcdLite {
            assert_eq!((member.get("/livez").status, member.get("/livez?verbose").status), (200, 200));
            let ready = member.get("/readyz/serializable_read?verbose");
            assert_eq!((ready.status, ready.body.as_str()), (200, "[+]serializable_read ok\nok\n"));
            let ready = member.get("/readyz?exclude=data_corruption");
            assert_eq!(ready.status, 503);
            assert!(
                ready.body.starts_with("[+]serializable_read ok\n[-]linearizable_read failed: "),
                "{ready:?}"
            );
            assert_eq!(member.get("/readyz/unknown").status, 404);
            // As etcd from 3.5.2 on.
            assert_eq!(member.get("/health?serializable=true").status, 200);
        }
        health
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, 503);
}

#[test]
fn probes_of_a_healthy_member_are_answered_as_by_etcd() {
    let answers = BOTH.map(|program| {
        let member = Member::start(program, &[]);
        let version = wait_for("the cluster has a version", SOON, || {
            let answer = member.get("/version");
            if answer.body.contains("not_decided") { Err(answer.body) } else { Ok(answer) }
        });
        let own: serde_json::Value = serde_json::from_str(&version.body).expect("JSON");
        assert!(own["etcdserver"].as_str().is_some_and(|version| version.starts_with("3.5.")), "{own}");
        let health = ["/health", "/health?serializable=true", "/health?serializable=false"].map(|path| {
            let answer = member.get(path);
            (answer.status, answer.body)
        });
        let post = coracle_tests::member::http(member.port(), "POST", "/health", &[], "").status;
        let missing = member.get("/nothing");
        (own["etcdcluster"].clone(), health, post, missing.status, missing.body)
    });
    assert_eq!(answers[0], answers[1]);

    let member = Member::start(Program::EtcdLite, &[]);
    let ready = member.get("/readyz?verbose");
    let checks = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n";
    assert_eq!((ready.status, ready.body.as_str()), (200, checks));
    assert_eq!(member.get("/readyz").body, "ok\n");
    assert_eq!(member.get("/livez/serializable_read").status, 200);
}

#[tokio::test]
async fn the_health_service_of_grpc_answers_as_in_etcd() {
    use coracle_proto::health::HealthCheckRequest;
    use coracle_proto::health::health_client::HealthClient;
    let mut answers = Vec::new();
    for program in BOTH {
        let member = Member::start(program, &[]);
        let mut client = HealthClient::connect(member.url()).await.expect("connects");
        let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
        let whole = client.check(ask("")).await.expect("an answer").into_inner().status;
        let unknown = client.check(ask("nothing")).await.expect_err("no such service");
        let mut watch = client.watch(ask("")).await.expect("a stream").into_inner();
        let first = watch.message().await.expect("a message").expect("the first one").status;
        answers.push((whole, unknown.code(), unknown.message().to_owned(), first));
    }
    assert_eq!(answers[0], answers[1]);
}
