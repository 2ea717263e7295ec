//! The choice among answers; and a search in namespaces, with a responder on the other end of a cable.

use super::*;
use crate::cmdline::Cmdline;
use crate::config::{Origin, Overrides};
use std::net::Ipv4Addr;

const SERVICE: &str = "baremetal._openstack._tcp.local";

fn record(name: &str, data: Data) -> Record {
    Record { name: name.into(), data }
}

fn service(port: u16, target: &str) -> Record {
    record(SERVICE, Data::Service { port, target: target.into() })
}

fn text(values: &[(&str, &str)]) -> Record {
    record(SERVICE, Data::Text(values.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()))
}

fn address(text: &str) -> Record {
    record("h.local", Data::Address(text.parse().unwrap()))
}

fn config(cmdline: &str, values: &[(&str, &str)]) -> Config {
    let values = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let overrides = Overrides { values, ..Overrides::default() };
    Config::load(&sys::fake::host("/nonexistent"), &Cmdline::parse(cmdline), &overrides).unwrap().0
}

#[test]
fn urls_are_made_as_the_announcement_says() {
    for (records, expected) in [
        (vec![service(80, "h.local"), address("192.0.2.1")], "http://192.0.2.1:80"),
        (vec![service(6385, "h.local"), address("192.0.2.1")], "https://192.0.2.1:6385"),
        (
            vec![
                service(443, "h.local"),
                address("2001:db8::1"),
                text(&[("path", "/baremetal"), ("protocol", "http")]),
            ],
            "http://[2001:db8::1]:443/baremetal",
        ),
        // The first with a route; never a loopback or a link-local one.
        (
            vec![
                service(80, "h.local"),
                address("127.0.0.1"),
                address("fe80::1"),
                address("198.51.100.1"),
                address("192.0.2.1"),
            ],
            "http://192.0.2.1:80",
        ),
        (
            vec![service(80, "h.local"), address("198.51.100.1"), address("198.51.100.2")],
            "http://198.51.100.1:80",
        ),
        (
            vec![
                service(6385, "api.example.org"),
                record("api.example.org", Data::Address("192.0.2.1".parse().unwrap())),
            ],
            "https://api.example.org:6385",
        ),
    ] {
        let routable = |address: IpAddr| address.to_string().starts_with("192.0.2.");
        assert_eq!(endpoint(SERVICE, &records, routable).unwrap().url, expected);
    }
    let none: [Vec<Record>; 3] = [
        vec![],
        vec![service(80, "h.local"), address("127.0.0.1")],
        vec![
            record("other._tcp.local", Data::Service { port: 1, target: "h.local".into() }),
            address("192.0.2.1"),
        ],
    ];
    assert!(none.iter().all(|records| endpoint(SERVICE, records, |_| true).is_none()));
}

#[test]
fn an_answer_sets_the_options_it_may_and_no_other() {
    let mut config = config("ipa-api-url=mdns", &[]);
    let properties = [
        ("ipa_ntp_server", "192.0.2.9"),
        ("ipa_insecure", "true"),
        ("ipa_api_url", "http://evil"),
        ("x", "y"),
    ];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    take(
        "api_url",
        &Endpoint { url: "http://192.0.2.1:80".into(), properties },
        "",
        &mut config,
        &Events::default(),
    );
    assert_eq!(
        (config.api_url.join(","), &config.api_url.origin),
        ("http://192.0.2.1:80".into(), &Origin::Mdns)
    );
    assert_eq!((config.ntp_server.as_deref(), &config.ntp_server.origin), (Some("192.0.2.9"), &Origin::Mdns));
    assert!(!*config.insecure);
}

/// Answers questions for the services as a conductor does, until this value is dropped.
#[allow(clippy::disallowed_methods)] // the cable is made with the system's own tools
fn ip(arguments: &str) {
    let output =
        std::process::Command::new("/usr/sbin/ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A responder behind a cable: tells its thread's id, then waits for the interface to be there, then answers `times` questions.
fn respond(ready: &std::sync::mpsc::Sender<i32>, answers: &[(String, Vec<Record>)], times: usize) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    ready.send(nix::unistd::gettid().as_raw()).unwrap();
    while sys::net::route::interface_index("srv0").is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let index = sys::net::route::interface_index("srv0").unwrap();
    sys::net::route::add_address(index, "192.0.2.1".parse().unwrap(), 24).unwrap();
    sys::net::route::set_up(index).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
    socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &Ipv4Addr::new(192, 0, 2, 1)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = [0; 1500];
    for _ in 0..times {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
        let asked = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let wanted = |name: &str| name.split('.').all(|label| asked.contains(label));
        // The longer name first: the shorter one is a part of it.
        if let Some((_, records)) = answers.iter().find(|(name, _)| wanted(name)) {
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            socket.send_to(&message::tests::encode(id, records), from).unwrap();
        }
    }
}

#[test]
fn netns_services_are_found_on_the_other_end_of_a_cable() {
    if !nix::unistd::geteuid().is_root() {
        let line = b"SKIPPED: mDNS in namespaces needs root\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line); // past cargo's capture: it counts
        return;
    }
    let inspection = "baremetal-introspection._openstack._tcp.local";
    let answers = vec![
        (
            inspection.to_owned(),
            vec![
                record(inspection, Data::Service { port: 5050, target: "h.local".into() }),
                record(inspection, Data::Text([("protocol".to_owned(), "http".to_owned())].into())),
                address("192.0.2.1"),
            ],
        ),
        (
            SERVICE.to_owned(),
            // Without the address: that takes a second question.
            vec![
                service(6385, "h.local"),
                text(&[("protocol", "http"), ("path", "/api"), ("ipa_ntp_server", "192.0.2.123")]),
            ],
        ),
        ("h.local".to_owned(), vec![address("192.0.2.1")]),
    ];
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let responder = std::thread::spawn(move || respond(&ready, &answers, 3));
        ip("link add eth0 type veth peer name srv0");
        ip(&format!("link set srv0 netns {}", is_ready.recv().unwrap()));
        ip("addr add 192.0.2.2/24 dev eth0");
        ip("link set eth0 up");
        let mut found =
            config("ipa-api-url=mdns ipa-inspection-callback-url=mdns", &[("mdns.lookup_attempts", "10")]);
        discover(&Host::real(), &mut found, false, &Events::default()).unwrap();
        assert_eq!(found.api_url.join(","), "http://192.0.2.1:6385/api");
        assert_eq!(found.inspection_callback_url.as_deref(), Some("http://192.0.2.1:5050/v1/continue"));
        assert_eq!(found.ntp_server.as_deref(), Some("192.0.2.123"));
        responder.join().unwrap();

        // Nobody there any more: fatal where it was asked for, and not where it was only allowed.
        let mut absent = config("ipa-api-url=mdns", &[("mdns.lookup_attempts", "1")]);
        let error = discover(&Host::real(), &mut absent, false, &Events::default()).unwrap_err().to_string();
        assert!(error.contains(SERVICE), "{error}");
        let mut allowed =
            config("ipa-use-mdns=1 ipa-inspection-callback-url=mdns", &[("mdns.lookup_attempts", "1")]);
        discover(&Host::real(), &mut allowed, false, &Events::default()).unwrap();
        assert!(allowed.api_url.is_empty() && allowed.inspection_callback_url.is_none());
    })
    .join()
    .unwrap();
}

#[test]
fn nothing_is_asked_that_nobody_configured() {
    // The fake kernel has no interfaces, and a search would take its time.
    let mut given = config("ipa-api-url=http://192.0.2.1 ipa-use-mdns=1", &[]);
    let started = std::time::Instant::now();
    discover(&sys::fake::host("/nonexistent"), &mut given, false, &Events::default()).unwrap();
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(given.api_url.join(","), "http://192.0.2.1");
}
