//! What the API refuses, and what hostile peers cost it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::power::BootMode;
use crate::testing::{Bench, TOKEN};

fn stranger() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Status and text of a request that is written by hand.
async fn raw(bench: &Bench, request: &str) -> (u16, String) {
    let address = bench.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.replace("HOST", address).as_bytes()).await.unwrap();
    let mut reply = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    let status = reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_need_the_token_and_machines_do_not() {
    let bench = Bench::new(BootMode::Uefi).await;
    let uuid = bench.enroll().await;
    let http = stranger();
    let ask = async |method: &str, path: &str, header: Option<(&str, String)>| {
        let method: Method = method.parse().unwrap();
        let mut request = http.request(method, format!("{}{path}", bench.url));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    };
    let node = format!("/v1/nodes/{uuid}");
    let closed = [
        ("GET", "/v1/nodes".to_owned()),
        ("GET", "/v1/nodes/".into()),
        ("POST", "/v1/nodes".into()),
        ("GET", "/v1/nodes/detail".into()),
        ("GET", node.clone()),
        ("PATCH", node.clone()),
        ("DELETE", node.clone()),
        ("GET", format!("{node}/ports")),
        ("GET", format!("{node}/states")),
        ("PUT", format!("{node}/states/power")),
        ("PUT", format!("{node}/states/provision")),
        ("GET", "/v1/ports".into()),
        ("POST", "/v1/ports".into()),
        ("DELETE", "/v1/ports/x".into()),
        ("GET", format!("/ferric{node}/events")),
        ("GET", format!("/ferric{node}/timeline")),
        ("GET", "/ferric/v1/images?path=/etc/passwd".into()),
        ("PUT", "/ferric/v1/images/x".into()),
    ];
    for (method, path) in &closed {
        let reply = ask(method, path, None).await;
        assert_eq!(reply.status(), 401, "{method} {path}");
        assert_eq!(reply.headers()["www-authenticate"], "Bearer realm=\"ferric\"");
        assert!(wire::ApiFault::text_of(&reply.text().await.unwrap()).contains("--token-file"));
    }
    for (name, value, status) in [
        ("Authorization", format!("Bearer {TOKEN}"), 200),
        ("Authorization", format!("bearer {TOKEN}"), 200),
        ("X-Auth-Token", TOKEN.to_owned(), 200),
        ("Authorization", TOKEN.to_owned(), 401),
        ("Authorization", format!("Basic {TOKEN}"), 401),
        ("Authorization", format!("Bearer {TOKEN}x"), 401),
        ("Authorization", "Bearer ".into(), 401),
        ("X-Auth-Token", String::new(), 401),
        ("X-Auth-Token", TOKEN[1..].to_owned(), 401),
    ] {
        let reply = ask("GET", "/v1/nodes", Some((name, value.clone()))).await;
        assert_eq!(reply.status(), status, "{name}: {value}");
    }
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/v1", 200),
        ("GET", "/v1/lookup?addresses=52:54:00:00:00:99", 404),
        ("POST", "/v1/heartbeat/x", 400),
        ("GET", "/boot/kernel", 200),
        ("GET", "/boot/boot.ipxe", 200),
        ("GET", "/images/absent", 404),
        ("GET", "/nowhere", 404),
    ] {
        assert_eq!(ask(method, path, None).await.status(), status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_socket_serves_the_open_routes_only() {
    let bench = Bench::new(BootMode::Uefi).await;
    let socket = bench.directory.path().join("machines.sock");
    let bound = http_server::bind_unix(&socket).unwrap();
    let service = super::machine_service(bench.controller.clone());
    let (_never, stop) = tokio::sync::watch::channel(false);
    let served = tokio::spawn(http_server::serve(bound, service, crate::serve::http_settings(), stop));
    let host = bench.url.strip_prefix("http://").unwrap();
    let ask = async |path: &str, host: &str| {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Auth-Token: {TOKEN}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    // No machine is an operator, not even with the token; and the host is the advertised one.
    let advertised = "controller.test:6385";
    assert_eq!(ask("/boot/kernel", host).await, 421);
    assert_eq!(ask("/v1/nodes", advertised).await, 404);
    assert_eq!(ask("/ferric/v1/images", advertised).await, 404);
    assert_eq!(ask("/boot/kernel", advertised).await, 200);
    assert_eq!(ask("/v1", advertised).await, 200);
    served.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_and_pages_of_other_sites_are_refused() {
    let bench = Bench::new(BootMode::Uefi).await;
    for (headers, status) in [
        ("Host: HOST", 200),
        ("Host: localhost", 200),
        ("Host: evil.example", 421),
        ("Host: 192.0.2.1:6385", 421),
        ("Host: HOST\r\nHost: HOST", 400),
        ("Accept: a", 400),
        ("Host: HOST\r\nOrigin: http://HOST", 200),
        ("Host: HOST\r\nOrigin: http://evil.example", 403),
        ("Host: HOST\r\nOrigin: null", 403),
        ("Host: HOST\r\nSec-Fetch-Site: cross-site", 403),
        ("Host: HOST\r\nSec-Fetch-Site: none", 200),
    ] {
        for path in ["/v1", "/v1/nodes", "/boot/kernel"] {
            let token = format!("X-Auth-Token: {TOKEN}\r\nConnection: close");
            let (got, reply) =
                raw(&bench, &format!("GET {path} HTTP/1.1\r\n{headers}\r\n{token}\r\n\r\n")).await;
            assert_eq!(got, status, "{path} {headers}: {reply}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_must_say_that_they_are_json_and_must_not_be_deep() {
    let bench = Bench::new(BootMode::Uefi).await;
    let body = json!({ "name": "n", "driver": "fake" }).to_string();
    let send = async |kind: Option<&str>, body: String| {
        let mut request = bench.http.post(format!("{}/v1/nodes", bench.url)).body(body);
        if let Some(kind) = kind {
            request = request.header("Content-Type", kind);
        }
        request.send().await.unwrap().status().as_u16()
    };
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("text/json")] {
        assert_eq!(send(kind, body.clone()).await, 415, "{kind:?}");
    }
    let json = Some("application/json; charset=utf-8");
    for (levels, status) in [(126, 400), (33, 400), (30, 201)] {
        let nested = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let body = format!(r#"{{"name":"n{levels}","driver":"fake","driver_info":{nested}}}"#);
        assert_eq!(send(json, body).await, status, "{levels}");
    }
    let patch =
        format!(r#"[{{"op":"add","path":"/extra/x","value":{}1{}}}]"#, "[".repeat(120), "]".repeat(120));
    let request =
        bench.http.patch(format!("{}/v1/nodes/n30", bench.url)).header("Content-Type", "application/json");
    assert_eq!(request.body(patch).send().await.unwrap().status(), 400);
    assert_eq!(bench.get("/v1/nodes").await.body["nodes"].as_array().unwrap().len(), 1);
    // Without a body there is nothing to declare.
    let empty = bench.http.put(format!("{}/v1/nodes/n30/states/power", bench.url)).send().await.unwrap();
    assert_eq!(empty.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_are_given_up() {
    let bench = Bench::new(BootMode::Uefi).await;
    let address = bench.url.strip_prefix("http://").unwrap().to_owned();
    let mut held = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(bench.get("/v1/nodes").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_bounded_together() {
    let bench = Bench::new(BootMode::Uefi).await;
    bench.enroll().await;
    let address = bench.url.strip_prefix("http://").unwrap().to_owned();
    let piece = vec![b' '; 1 << 20];
    let mut taken = Vec::new();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "PUT /v1/nodes/demo/states/provision HTTP/1.1\r\nHost: {address}\r\nX-Auth-Token: {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: 90000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut sent = 0;
        while sent < 60 && timeout(Duration::from_secs(3), stream.write_all(&piece)).await.is_ok() {
            sent += 1;
        }
        taken.push(sent);
        held.push(stream);
    }
    // The others wait with what a socket and one mebibyte hold.
    assert_eq!(taken[0], 60, "{taken:?}");
    assert!(taken[1] < 30 && taken[2] < 30, "{taken:?}");
    assert_eq!(bench.get("/v1/nodes/demo").await.status, 200, "small requests are answered meanwhile");
    // Without the token nothing of a body is read.
    let closed = raw(
        &bench,
        "PUT /v1/nodes/demo/states/provision HTTP/1.1\r\nHost: HOST\r\nContent-Length: 90000000\r\n\r\n",
    );
    assert_eq!(closed.await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_lead_nowhere() {
    let bench = Bench::new(BootMode::Uefi).await;
    let put = async |name: &str, body: &'static str| {
        let request = bench.http.put(format!("{}/ferric/v1/images/{name}", bench.url)).body(body);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(put(&"x".repeat(300), "a").await, 400);
    assert_eq!(put("a.raw", "first").await, 201);
    assert_eq!(put("a.raw", "second").await, 409, "an image is not replaced in silence");
    assert_eq!(bench.get("/images/a.raw").await.text, "first");
    assert_eq!(put("a.raw?replace=true", "second").await, 201);
    assert_eq!(bench.get("/images/a.raw").await.text, "second");
    let stored = bench.get("/ferric/v1/images/a.raw").await.body;
    assert_eq!(stored, json!({ "url": format!("{}/images/a.raw", bench.url), "size": 6 }));
    assert_eq!(bench.get("/ferric/v1/images/b.raw").await.body, json!({ "url": null, "size": null }));
    // Half an upload leaves nothing.
    let address = bench.url.strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "PUT /ferric/v1/images/half.raw HTTP/1.1\r\nHost: {address}\r\nX-Auth-Token: {TOKEN}\r\nContent-Length: 1000\r\n\r\nhalf"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let names = || {
        let entries = std::fs::read_dir(bench.directory.path().join("images")).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let wait = async |count: usize| {
        let begun = Instant::now();
        while names().len() != count {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", names());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(2).await;
    drop(stream);
    wait(1).await;
    assert_eq!(names(), ["a.raw"]);
    // More than there is room for is refused before it is sent.
    let (status, reply) = raw(
        &bench,
        &format!(
            "PUT /ferric/v1/images/big.raw HTTP/1.1\r\nHost: HOST\r\nX-Auth-Token: {TOKEN}\r\nConnection: close\r\n\
             Content-Length: 4611686018427387904\r\n\r\n"
        ),
    )
    .await;
    assert_eq!(status, 507, "{reply}");
    // A link among the images leads to the state as little as a path does.
    std::os::unix::fs::symlink(
        bench.directory.path().join("ferric.sqlite"),
        bench.directory.path().join("images/link.raw"),
    )
    .unwrap();
    assert_eq!(bench.get("/images/link.raw").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_stops_nothing() {
    let bench = Bench::new(BootMode::Uefi).await;
    bench.enroll().await;
    let body = json!({ "name": "other", "driver": "fake" });
    let other = bench.call(Method::POST, "/v1/nodes", Some("1.68"), Some(body)).await;
    let uuid = other.body["uuid"].as_str().unwrap();
    let database = rusqlite::Connection::open(bench.directory.path().join("ferric.sqlite")).unwrap();
    database.execute("UPDATE nodes SET body = '[]' WHERE name = 'other'", []).unwrap();
    let bench = bench.restarted().await;
    let list = bench.get("/v1/nodes").await;
    assert_eq!((list.status, list.body["nodes"][0]["name"].as_str()), (200, Some("demo")));
    let shown = bench.get("/v1/nodes/other").await;
    assert_eq!(shown.status, 500);
    assert!(shown.fault().contains(uuid) && shown.fault().contains("delete"), "{}", shown.fault());
    assert_eq!(bench.call(Method::DELETE, "/v1/nodes/other", Some("1.68"), None).await.status, 204);
    assert_eq!(bench.get("/v1/nodes/other").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn kernel_parameters_that_would_be_commands_are_refused() {
    let bench = Bench::new(BootMode::Uefi).await;
    bench.enroll().await;
    for (value, status) in [
        (json!("&& chain http://192.0.2.9/x ||"), 400),
        (json!("ip=${net0/ip}"), 400),
        (json!("a\nshell"), 400),
        (json!(["a"]), 400),
        (json!("ipa-debug=1 quiet"), 200),
    ] {
        let patch = json!([{ "op": "add", "path": "/driver_info/kernel_append_params", "value": value }]);
        let reply = bench.call(Method::PATCH, "/v1/nodes/demo", Some("1.68"), Some(patch)).await;
        assert_eq!(reply.status, status, "{value}: {}", reply.text);
        assert!(status == 200 || reply.fault().contains("kernel_append_params"), "{}", reply.fault());
        let body = json!({ "driver": "fake", "driver_info": { "kernel_append_params": value } });
        let made = bench.call(Method::POST, "/v1/nodes", Some("1.68"), Some(body)).await;
        assert_eq!(made.status, if status == 200 { 201 } else { 400 }, "{value}");
    }
}
