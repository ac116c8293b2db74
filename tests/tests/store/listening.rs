//! Where a member listens and what it says there: URLs for HTTP alone, origins and host names, sockets that are shared or taken over, connections that
//! are asked whether anybody is there. What etcd 3.5.1 has too is run against both.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use coracle_tests::member::{Answer, Member, SOON, http};
use coracle_tests::ports::free_ports;
use coracle_tests::store::{Program, etcd_35};
use coracle_tests::tools::run;

const BOTH: [Program; 2] = [Program::EtcdLite, Program::Etcd35];

/// What an HTTP/2 client says first: the preface and empty settings.
const HTTP2_BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A connection by HTTP/2, by hand.
struct Http2(TcpStream);

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Frame {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
}

impl Http2 {
    fn connect(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        stream.write_all(HTTP2_BEGIN).expect("begins");
        Self(stream)
    }

    /// The next frame; `None` when the server has closed.
    fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no frame within {SOON:?}")
            }
            result => result.ok()?,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], payload })
    }

    fn next_of(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.frame()).find(|frame| frame.kind == kind)
    }
}

#[test]
fn http_has_urls_of_its_own_and_the_others_then_speak_grpc_alone() {
    let port = free_ports(1)[0];
    let flag = format!("--listen-client-http-urls=http://127.0.0.1:{port}");
    let member = Member::start(Program::EtcdLite, &[&flag]);
    member.etcdctl(&["put", "a", "b"]).ok();
    for path in ["/health", "/version", "/metrics"] {
        assert_eq!(http(port, "GET", path, &[], "").status, 200, "{path}");
    }
    let range = http(port, "POST", "/v3/kv/range", &[], r#"{"key":"YQ=="}"#);
    assert!(range.body.contains(r#""value":"Yg==""#), "{range:?}");
    let mut etcdctl = Command::new(etcd_35("etcdctl"));
    etcdctl.args(["--endpoints", &format!("127.0.0.1:{port}"), "--command-timeout=1s", "get", "a"]);
    assert!(run(&mut etcdctl).err().contains("404"), "no gRPC there");
    let mut stream = TcpStream::connect(("127.0.0.1", member.port())).expect("connects");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").expect("asks");
    let mut answer = String::new();
    // Closed, perhaps with what it did not read.
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.contains("health"), "{answer}");
}

#[test]
fn one_url_for_grpc_and_for_http_alone_is_refused() {
    let mut member = Member::prepare(Program::EtcdLite);
    let flag = format!("--listen-client-http-urls={}", member.url());
    member.launch(&[&flag]);
    assert!(!member.wait_ended().success());
    let said = format!(
        "cannot bind both --client-listen-urls and --client-listen-http-urls on the same url {}",
        member.url()
    );
    assert!(member.log().contains(&said), "{}", member.log());
}

/// What a page may do with an answer.
fn allowed(answer: &Answer) -> Vec<String> {
    let mut headers: Vec<String> = answer
        .head
        .lines()
        .map(str::to_lowercase)
        .filter(|line| line.starts_with("access-control-"))
        .collect();
    headers.sort();
    headers
}

#[test]
fn origins_and_host_names_are_let_in_as_in_etcd() {
    let answers = BOTH.map(|program| {
        let flags = ["--cors=http://good.example:8080", "--host-whitelist=localhost,127.0.0.1,good.example"];
        let member = Member::start(program, &flags);
        let any = Member::start(program, &[]);
        let ask = |member: &Member, header: &str| {
            let answer = http(member.port(), "GET", "/version", &[header], "");
            (answer.status, allowed(&answer))
        };
        [
            ask(&member, "Origin: http://good.example:8080"),
            ask(&member, "Origin: http://bad.example"),
            ask(&member, "Host: good.example"),
            ask(&member, "Host: bad.example"),
            ask(&any, "Origin: http://bad.example"),
            ask(&any, "Host: bad.example"),
        ]
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].each_ref().map(|(status, _)| *status), [200, 200, 200, 421, 200, 200]);
    assert!(answers[0][1].1.is_empty() && !answers[0][0].1.is_empty());
}

#[test]
fn the_gateway_can_be_switched_off() {
    let statuses = BOTH.map(|program| {
        let member = Member::start(program, &["--enable-grpc-gateway=false"]);
        (member.post("/v3/kv/range", r#"{"key":"YQ=="}"#).status, member.get("/health").status)
    });
    assert_eq!(statuses, [(404, 200), (404, 200)]);
}

#[test]
fn a_port_is_shared_only_if_told_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    for program in BOTH {
        for is_shared in [false, true] {
            let member = Member::start(program, &[&format!("--socket-reuse-port={is_shared}")]);
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.set_reuseport(true).expect("an option");
            let bound = socket.bind(SocketAddr::from(([127, 0, 0, 1], member.port())));
            assert_eq!(bound.is_ok(), is_shared, "{program:?}");
        }
    }
}

#[test]
fn a_member_that_ended_has_its_port_back_at_once() {
    let mut member = Member::start(Program::EtcdLite, &["--socket-reuse-address"]);
    let mut open = Http2::connect(member.port());
    // Everything is read on both sides, so that the server's end, which closes first, is left in TIME_WAIT.
    assert!(
        std::iter::from_fn(|| open.frame()).any(|frame| (frame.kind, frame.flags) == (Frame::SETTINGS, 1))
    );
    member.terminate();
    while open.frame().is_some() {}
    drop(open);
    let own_end = format!(":{:04X} ", member.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the sockets");
    let is_waiting = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 3 && format!("{} ", fields[1]).ends_with(&own_end) && fields[3] == "06"
    };
    assert!(sockets.lines().any(is_waiting), "{sockets}");
    member.launch(&["--socket-reuse-address"]);
    member.wait_healthy();
}

#[test]
fn who_does_not_answer_is_asked_and_let_go() {
    for program in BOTH {
        let member = Member::start(program, &["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"]);
        let mut silent = Http2::connect(member.port());
        let begun = Instant::now();
        let ping = silent.next_of(Frame::PING).expect("it is asked");
        assert_eq!(ping.flags, 0, "a question");
        assert!(begun.elapsed() >= Duration::from_millis(800), "{program:?}: {:?}", begun.elapsed());
        while silent.frame().is_some() {}
        assert!(begun.elapsed() >= Duration::from_millis(1800), "{program:?}: {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(15), "{program:?}: {:?}", begun.elapsed());
    }
}

/// Pings one by one until the server has enough; how many that took, and what it said.
fn sent_away_after(port: u16) -> (u32, Vec<u8>) {
    let mut client = Http2::connect(port);
    for count in 1..20 {
        // The server may have closed.
        let _ = client.0.write_all(b"\0\0\x08\x06\0\0\0\0\0pingpong");
        let answer = std::iter::from_fn(|| client.frame())
            .find(|frame| frame.kind == Frame::GOAWAY || (frame.kind, frame.flags) == (Frame::PING, 1))
            .expect("an answer or a reason");
        if answer.kind == Frame::GOAWAY {
            assert_eq!(client.frame(), None, "that is the end");
            return (count, answer.payload);
        }
    }
    panic!("pings are let pass for ever");
}

#[tokio::test]
async fn who_asks_too_often_is_sent_away() {
    let told = BOTH.map(|program| {
        let member = Member::start(program, &[]);
        let (count, said) = sent_away_after(member.port());
        // etcd answers the fourth, which is one too many, before it says so.
        assert!((4..=5).contains(&count), "{program:?}: {count}");
        // Not the last stream, of which there is none.
        said[4..].to_vec()
    });
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], b"\0\0\0\x0btoo_many_pings");

    let options = etcd_client::ConnectOptions::new().with_keep_alive(Duration::from_millis(100), SOON);
    for program in BOTH {
        for (min_time, is_sent_away) in [("10s", true), ("1ms", false)] {
            let member = Member::start(program, &[&format!("--grpc-keepalive-min-time={min_time}")]);
            let mut client =
                etcd_client::Client::connect([member.url()], Some(options.clone())).await.expect("connects");
            let mut watch = client.watch("quiet", None).await.expect("a watch");
            assert!(watch.message().await.expect("a message").is_some_and(|message| message.created()));
            let next = tokio::time::timeout(Duration::from_secs(3), watch.message()).await;
            let has_ended = matches!(next, Ok(Err(_) | Ok(None)));
            assert_eq!(has_ended, is_sent_away, "{program:?} with {min_time}: {next:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_has_so_many_streams_and_no_more() {
    let member = Member::start(Program::EtcdLite, &["--max-concurrent-streams=2"]);
    let settings = Http2::connect(member.port()).next_of(Frame::SETTINGS).expect("settings").payload;
    let streams_max: Vec<&[u8]> = settings.chunks(6).filter(|setting| setting[..2] == [0, 3]).collect();
    assert_eq!(streams_max, [[0, 3, 0, 0, 0, 2]]);

    let mut client = etcd_client::Client::connect([member.url()], None).await.expect("connects");
    let first = client.watch("a", None).await.expect("a stream");
    let _second = client.watch("b", None).await.expect("another");
    let mut waiting = client.clone();
    let mut third = tokio::spawn(async move { waiting.get("a", None).await.map(|answer| answer.count()) });
    tokio::time::timeout(Duration::from_secs(1), &mut third).await.expect_err("there is no stream left");
    drop(first);
    let count = tokio::time::timeout(SOON, third).await.expect("a stream is free").expect("runs");
    assert_eq!(count.expect("an answer"), 0);
}
