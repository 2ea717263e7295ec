//! Certificates as sites make them with `openssl`, shown by Python's `ssl`: each is judged as Python judges it, and with
//! `insecure` none keeps a client from its server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
// The other end of a handshake must be another program.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tls::{ClientSettings, client_config};

/// Serves the certificate of each line it reads, connects to itself as `requests` would, and prints port and verdict.
const PEER: &str = r#"
import socket, ssl, sys, threading
def serve(listener, context):
    while True:
        plain, _ = listener.accept()
        plain.settimeout(20)
        try:
            with context.wrap_socket(plain, server_side=True) as wrapped:
                wrapped.sendall(b"hello")
                wrapped.recv(1)
        except (OSError, ssl.SSLError):
            pass
for line in sys.stdin:
    chain, key, ca, host, version = line.rstrip("\n").split("\t")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.load_cert_chain(chain, key)
    server.maximum_version = getattr(ssl.TLSVersion, version)
    listener = socket.create_server(("127.0.0.1", 0), backlog=20)
    threading.Thread(target=serve, args=(listener, server), daemon=True).start()
    port = listener.getsockname()[1]
    try:
        client = ssl.create_default_context(cafile=ca)
        client.hostname_checks_common_name = False
        client.set_ciphers("DEFAULT:@SECLEVEL=2")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            with client.wrap_socket(plain, server_hostname=host) as wrapped:
                wrapped.recv(5)
        verdict = "accepted"
    except (OSError, ssl.SSLError) as error:
        verdict = str(error).replace("\n", " ")
    print(port, verdict, flush=True)
"#;

struct Peer {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start() -> Option<Self> {
        let spawned =
            Command::new("python3").args(["-c", PEER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.ok()?;
        let answers = BufReader::new(process.stdout.take().unwrap());
        Some(Self { process, answers })
    }

    /// The port of a server that shows this, and what Python as a client says of it.
    fn serve(&mut self, pki: &Pki, leaf: &str, ca: &str, host: &str, version: &str) -> (u16, String) {
        let at = |name: &str| pki.at(name).display().to_string();
        let line =
            [at(&format!("{leaf}.pem")), at(&format!("{leaf}.key")), at(ca), host.into(), version.into()]
                .join("\t");
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let (port, verdict) = answer.trim().split_once(' ').unwrap_or_else(|| panic!("{leaf}: Python ended"));
        (port.parse().unwrap(), verdict.to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Certificates in a folder: `NAME.pem` and `NAME.key`.
struct Pki(tempfile::TempDir);

const CA: &[&str] = &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"];
const HOST: &str = "subjectAltName=DNS:ironic.example,IP:127.0.0.1";

impl Pki {
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, words: &str) {
        let done =
            Command::new("openssl").args(words.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Keys are made once for each kind and each side.
    fn key(&self, name: &str, kind: &str, side: &str) {
        let kept = format!("{side}-{kind}.kept");
        if !self.at(&kept).exists() {
            let algorithm = match kind {
                "rsa1024" => "RSA -pkeyopt rsa_keygen_bits:1024".to_owned(),
                "rsa" => "RSA -pkeyopt rsa_keygen_bits:2048".to_owned(),
                "pss" => "RSA-PSS -pkeyopt rsa_keygen_bits:2048".to_owned(),
                "pss256" => "RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha256 \
                             -pkeyopt rsa_pss_keygen_mgf1_md:sha256 -pkeyopt rsa_pss_keygen_saltlen:32"
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" "),
                "ed25519" => "ED25519".to_owned(),
                curve => format!("EC -pkeyopt ec_paramgen_curve:{curve}"),
            };
            self.openssl(&format!("genpkey -out {kept} -algorithm {algorithm}"));
        }
        std::fs::copy(self.at(&kept), self.at(&format!("{name}.key"))).unwrap();
    }

    /// A certificate that signs itself.
    fn root(&self, name: &str, kind: &str, extensions: &[&str], more: &str) {
        self.make(name, None, kind, extensions, more);
    }

    fn make(&self, name: &str, issuer: Option<&str>, kind: &str, extensions: &[&str], more: &str) {
        let subject = if extensions.contains(&CA[0]) || issuer.is_none() { name } else { "ironic.example" };
        let side = if issuer.is_none() {
            "root"
        } else if extensions.contains(&CA[0]) {
            "middle"
        } else {
            "leaf"
        };
        self.key(name, kind, side);
        self.openssl(&format!("req -new -key {name}.key -subj /O=Lab/CN={subject} -out {name}.csr"));
        let signer = match issuer {
            None => format!("-signkey {name}.key"),
            Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
        };
        let mut words = format!("x509 -req -in {name}.csr -out {name}.pem {signer}");
        if !extensions.is_empty() {
            std::fs::write(self.at("ext"), extensions.join("\n") + "\n").unwrap();
            words.push_str(" -extfile ext");
        }
        let days = if more.contains("-days") { "" } else { " -days 30" };
        let more = if more.is_empty() { String::new() } else { format!(" {more}") };
        self.openssl(&format!("{words}{days}{more}"));
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    fn join(&self, name: &str, parts: &[&str]) {
        let text: String = parts.iter().map(|part| self.read(part)).collect();
        std::fs::write(self.at(name), text).unwrap();
    }
}

/// A handshake with what listens there; the error in words.
fn shake(port: u16, settings: &ClientSettings, host: &str) -> Result<(), String> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config(settings).unwrap()), name).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut socket).map_err(|error| tls::chain(&error))?;
    }
    Ok(())
}

/// Leaf, file of anchors, host, and a part of the words with which it is refused (empty: it is accepted).
type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

fn tools() -> Option<Peer> {
    let has = |program: &str| Command::new(program).arg("version").output().is_ok();
    let peer = Peer::start();
    if !has("openssl") || peer.is_none() {
        // Past cargo's capture: it counts.
        let text = b"SKIPPED: openssl or python3 is not installed\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text);
        return None;
    }
    peer
}

fn agree(peer: &mut Peer, pki: &Pki, cases: &[Case<'_>]) {
    let mut wrong = Vec::new();
    for (leaf, ca, host, words) in cases {
        let (port, python) = peer.serve(pki, leaf, ca, host, "TLSv1_3");
        let settings = ClientSettings { ca_file: Some(pki.at(ca)), ..ClientSettings::default() };
        let ours = shake(port, &settings, host);
        let line = format!("{leaf} by {ca} for {host}: Python {python}, ours {ours:?}, wanted `{words}`");
        let right = match &ours {
            Ok(()) => words.is_empty(),
            Err(text) => !words.is_empty() && text.contains(words),
        };
        if !right || ours.is_ok() != (python == "accepted") {
            wrong.push(line);
        }
        if words.is_empty() && !leaf.contains("pss") {
            let (port, python) = peer.serve(pki, leaf, ca, host, "TLSv1_2");
            let ours = shake(port, &settings, host);
            if ours.is_err() || python != "accepted" {
                wrong.push(format!("{leaf} in TLS 1.2: Python {python}, ours {ours:?}"));
            }
        }
        let insecure = ClientSettings { insecure: true, ..ClientSettings::default() };
        if let Err(error) = shake(port, &insecure, "other.example") {
            wrong.push(format!("{leaf}: insecure refuses: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn keys_and_signatures_are_judged_as_openssl_judges_them() {
    let Some(mut peer) = tools() else { return };
    let pki = Pki(tempfile::tempdir().unwrap());
    let mut names = Vec::new();
    let accepted = "";
    for kind in ["P-256", "P-384", "P-521"] {
        for digest in ["sha256", "sha384", "sha512"] {
            let name = format!("by-{kind}-{digest}");
            pki.root(&format!("ca-{name}"), kind, CA, &format!("-{digest}"));
            pki.make(&name, Some(&format!("ca-{name}")), kind, &[HOST], &format!("-{digest}"));
            names.push((name.clone(), format!("ca-{name}.pem"), accepted));
        }
    }
    pki.root("rsa", "rsa", CA, "");
    for kind in ["rsa", "ed25519", "pss", "pss256"] {
        let name = format!("leaf-{kind}");
        pki.make(&name, Some("rsa"), kind, &[HOST], "");
        names.push((name, "rsa.pem".into(), accepted));
    }
    for (name, options, words) in [
        ("pss-usual", "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest", accepted),
        ("pss-longest-salt", "-sigopt rsa_padding_mode:pss", accepted),
        ("pss-sha512", "-sha512 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20", accepted),
        ("pss-other-mask", "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_mgf1_md:sha384", accepted),
        ("pss-without-salt", "-sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:0", accepted),
        ("sha384", "-sha384", accepted),
        ("sha512", "-sha512", accepted),
        ("sha1", "-sha1", "RSA with SHA-1, which is not supported"),
        ("md5", "-md5", "RSA with MD5, which is not supported"),
    ] {
        pki.make(name, Some("rsa"), "rsa", &[HOST], options);
        names.push((name.into(), "rsa.pem".into(), words));
    }
    for (ca, kind) in [("ca-pss", "pss"), ("ca-pss256", "pss256"), ("ca-ed25519", "ed25519")] {
        pki.root(ca, kind, CA, "");
        pki.make(&format!("of-{ca}"), Some(ca), "rsa", &[HOST], "");
        names.push((format!("of-{ca}"), format!("{ca}.pem"), accepted));
    }
    pki.make("short", Some("rsa"), "rsa1024", &[HOST], "");
    names.push(("short".into(), "rsa.pem".into(), "RSA key of 1024 bits"));
    pki.root("short-ca", "rsa1024", CA, "");
    pki.make("of-short", Some("short-ca"), "rsa", &[HOST], "");
    names.push(("of-short".into(), "short-ca.pem".into(), "RSA key of 1024 bits"));
    let cases: Vec<Case<'_>> = names
        .iter()
        .map(|(leaf, ca, words)| (leaf.as_str(), ca.as_str(), "ironic.example", *words))
        .collect();
    agree(&mut peer, &pki, &cases);
}

#[test]
fn extensions_names_and_times_are_judged_as_openssl_judges_them() {
    let Some(mut peer) = tools() else { return };
    let pki = Pki(tempfile::tempdir().unwrap());
    pki.root("root", "P-256", CA, "");
    pki.root("other", "P-256", CA, "");
    pki.root("old-root", "P-256", &[], ""); // version 1
    pki.root("no-authority", "P-256", &["basicConstraints=CA:FALSE"], "");
    pki.root("late-root", "P-256", CA, "-days -1");
    pki.root("policy-root", "P-256", &[CA[0], CA[1], "certificatePolicies=critical,1.2.3.4"], "");
    pki.root("client-root", "P-256", &[CA[0], CA[1], "extendedKeyUsage=clientAuth"], "");
    pki.root(
        "narrow",
        "P-256",
        &[CA[0], CA[1], "nameConstraints=critical,permitted;DNS:example,permitted;IP:127.0.0.0/255.0.0.0"],
        "",
    );
    pki.root(
        "narrow-elsewhere",
        "P-256",
        &[CA[0], CA[1], "nameConstraints=critical,permitted;DNS:example.org"],
        "",
    );
    pki.root("all-but", "P-256", &[CA[0], CA[1], "nameConstraints=excluded;DNS:ironic.example"], "");
    pki.root(
        "of-lab",
        "P-256",
        &[CA[0], CA[1], "nameConstraints=critical,permitted;dirName:lab\n[lab]\nO=Lab"],
        "",
    );
    let leaf = |name: &str, issuer: &str, extensions: &[&str], more: &str| {
        pki.make(name, Some(issuer), "P-256", extensions, more);
    };
    for issuer in [
        "root",
        "old-root",
        "no-authority",
        "late-root",
        "policy-root",
        "client-root",
        "narrow",
        "narrow-elsewhere",
        "all-but",
        "of-lab",
    ] {
        leaf(&format!("of-{issuer}"), issuer, &[HOST], "");
    }
    leaf("authority", "root", &[HOST, "basicConstraints=critical,CA:TRUE"], "");
    leaf("policies", "root", &[HOST, "certificatePolicies=critical,1.2.3.4"], "");
    leaf("unknown", "root", &[HOST, "1.2.3.4=critical,DER:0500"], "");
    leaf("unknown-plain", "root", &[HOST, "1.2.3.4=DER:0500"], "");
    leaf("client", "root", &[HOST, "extendedKeyUsage=clientAuth"], "");
    leaf(
        "server",
        "root",
        &[HOST, "extendedKeyUsage=critical,clientAuth,serverAuth", "keyUsage=critical,digitalSignature"],
        "",
    );
    leaf("signs-only", "root", &[HOST, "keyUsage=critical,cRLSign"], "");
    leaf("late", "root", &[HOST], "-days -1");
    leaf("common-name", "root", &["basicConstraints=CA:FALSE"], "");
    leaf("version-1", "root", &[], "");
    leaf("star", "root", &["subjectAltName=DNS:*.example.com"], "");
    leaf("star-of-all", "root", &["subjectAltName=DNS:*.example"], "");
    leaf("v6", "root", &["subjectAltName=IP:2001:db8::1"], "");
    // Self-signed, as its own anchor.
    pki.root("own", "P-256", &[HOST, "basicConstraints=CA:FALSE"], "");
    pki.root("own-authority", "P-256", &[HOST, "basicConstraints=critical,CA:TRUE"], "");
    // A signature that is not that of the authority.
    let der = pki.read("of-root.pem").replace('\n', "");
    let body = der
        .strip_prefix("-----BEGIN CERTIFICATE-----")
        .unwrap()
        .strip_suffix("-----END CERTIFICATE-----")
        .unwrap();
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    let mut bytes = engine.decode(body).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        engine
            .encode(&bytes)
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect::<Vec<_>>()
            .join("\n")
    );
    std::fs::write(pki.at("forged.pem"), forged).unwrap();
    std::fs::copy(pki.at("of-root.key"), pki.at("forged.key")).unwrap();

    let host = "ironic.example";
    agree(
        &mut peer,
        &pki,
        &[
            ("of-root", "root.pem", host, ""),
            ("of-root", "root.pem", "127.0.0.1", ""),
            ("of-root", "root.pem", "IRONIC.example", ""),
            ("of-root", "root.pem", "127.0.0.2", "is not for 127.0.0.2"),
            ("of-root", "root.pem", "conductor.example", "is not for conductor.example"),
            ("of-root", "other.pem", host, "other.pem has signed"),
            ("forged", "root.pem", host, "root.pem has signed"),
            ("of-old-root", "old-root.pem", host, ""),
            ("of-no-authority", "no-authority.pem", host, "which is not an authority"),
            ("of-late-root", "late-root.pem", host, "(an authority above it)"),
            ("of-policy-root", "policy-root.pem", host, ""),
            ("of-client-root", "client-root.pem", host, "not for servers"),
            ("of-narrow", "narrow.pem", host, ""),
            ("of-narrow", "narrow.pem", "127.0.0.1", ""),
            ("of-narrow-elsewhere", "narrow-elsewhere.pem", host, "nameConstraints"),
            ("of-all-but", "all-but.pem", host, "nameConstraints"),
            ("of-of-lab", "of-lab.pem", host, ""),
            ("authority", "root.pem", host, ""),
            ("policies", "root.pem", host, ""),
            ("unknown", "root.pem", host, "critical extension 1.2.3.4"),
            ("unknown-plain", "root.pem", host, ""),
            ("client", "root.pem", host, "not for servers"),
            ("server", "root.pem", host, ""),
            ("signs-only", "root.pem", host, "not for servers"),
            ("late", "root.pem", host, "was valid until"),
            ("common-name", "root.pem", host, "the common name does not count"),
            ("version-1", "root.pem", host, "the common name does not count"),
            ("star", "root.pem", "a.example.com", ""),
            ("star", "root.pem", "a.b.example.com", "is not for"),
            ("star", "root.pem", "example.com", "is not for"),
            ("star-of-all", "root.pem", host, "is not for"),
            ("v6", "root.pem", "2001:db8::1", ""),
            ("v6", "root.pem", "2001:db8::2", "is not for"),
            ("own", "own.pem", host, ""),
            ("own-authority", "own-authority.pem", host, ""),
            ("own", "root.pem", host, "root.pem has signed"),
        ],
    );
}

#[test]
fn chains_are_found_whatever_the_server_shows_beside_them() {
    let Some(mut peer) = tools() else { return };
    let pki = Pki(tempfile::tempdir().unwrap());
    pki.root("root", "P-256", CA, "");
    pki.root("other", "P-256", CA, "");
    pki.root("short", "P-256", &["basicConstraints=critical,CA:TRUE,pathlen:0", CA[1]], "");
    pki.make("middle", Some("root"), "P-256", CA, "");
    pki.make("lower", Some("middle"), "P-256", CA, "");
    pki.make("late-middle", Some("root"), "P-256", CA, "-days -1");
    pki.make("no-middle", Some("root"), "P-256", &["basicConstraints=CA:FALSE"], "");
    pki.make("short-middle", Some("short"), "P-256", CA, "");
    for issuer in ["middle", "lower", "late-middle", "no-middle", "short-middle", "short"] {
        pki.make(&format!("of-{issuer}"), Some(issuer), "P-256", &[HOST], "");
    }
    // The same authority, signed by another one: same name, same key.
    std::fs::write(pki.at("crossed.ext"), CA.join("\n") + "\n").unwrap();
    pki.openssl("x509 -req -in middle.csr -out crossed.pem -CA other.pem -CAkey other.key -CAcreateserial -days 30 -extfile crossed.ext");
    let shown = |name: &str, leaf: &str, above: &[&str]| {
        let parts: Vec<_> =
            std::iter::once(leaf).chain(above.iter().copied()).map(|part| format!("{part}.pem")).collect();
        pki.join(&format!("{name}.pem"), &parts.iter().map(String::as_str).collect::<Vec<_>>());
        std::fs::copy(pki.at(&format!("{leaf}.key")), pki.at(&format!("{name}.key"))).unwrap();
    };
    shown("with-middle", "of-middle", &["middle"]);
    shown("with-root", "of-middle", &["middle", "root"]);
    shown("mixed", "of-lower", &["other", "middle", "root", "lower"]);
    shown("twice", "of-middle", &["middle", "middle", "crossed"]);
    shown("crossed-first", "of-middle", &["crossed", "middle"]);
    shown("with-late", "of-late-middle", &["late-middle"]);
    shown("with-no-authority", "of-no-middle", &["no-middle"]);
    shown("too-long", "of-short-middle", &["short-middle"]);
    pki.join("both.pem", &["other.pem", "root.pem"]);
    let host = "ironic.example";
    agree(
        &mut peer,
        &pki,
        &[
            ("with-middle", "root.pem", host, ""),
            ("of-middle", "root.pem", host, "root.pem has signed"),
            ("with-root", "root.pem", host, ""),
            ("with-root", "both.pem", host, ""),
            ("with-root", "other.pem", host, "other.pem has signed"),
            ("mixed", "root.pem", host, ""),
            ("twice", "root.pem", host, ""),
            ("crossed-first", "other.pem", host, ""),
            ("with-late", "root.pem", host, "(an authority above it)"),
            ("with-no-authority", "root.pem", host, "which is not an authority"),
            ("too-long", "short.pem", host, "pathlen"),
            ("of-short", "short.pem", host, ""),
        ],
    );
    // OpenSSL 3.0 follows the first certificate of a name and gives up there; every other one is tried here.
    for (leaf, ca) in [("twice", "other.pem"), ("crossed-first", "root.pem")] {
        let (port, _) = peer.serve(&pki, leaf, ca, host, "TLSv1_3");
        let settings = ClientSettings { ca_file: Some(pki.at(ca)), ..ClientSettings::default() };
        shake(port, &settings, host).unwrap();
    }
    // An authority in the middle as the only anchor: Python from 3.13 on takes it, and so does this client.
    let (port, _) = peer.serve(&pki, "of-middle", "middle.pem", host, "TLSv1_3");
    let settings = ClientSettings { ca_file: Some(pki.at("middle.pem")), ..ClientSettings::default() };
    shake(port, &settings, host).unwrap();
}

#[test]
fn files_of_anchors_are_read_as_openssl_writes_them() {
    let Some(mut peer) = tools() else { return };
    let pki = Pki(tempfile::tempdir().unwrap());
    pki.root("root", "P-256", CA, "");
    pki.root("other", "P-256", CA, "");
    pki.make("leaf", Some("root"), "P-256", &[HOST], "");
    for (name, options) in [
        ("trusted", "-trustout"),
        ("trusted-for-servers", "-addtrust serverAuth"),
        ("trusted-with-name", "-setalias site"),
        ("trusted-for-clients", "-addtrust clientAuth"),
        ("rejected", "-addreject serverAuth"),
    ] {
        pki.openssl(&format!("x509 -in root.pem -out {name}.pem {options}"));
    }
    assert!(pki.read("trusted.pem").contains("BEGIN TRUSTED CERTIFICATE"));
    let root = pki.read("root.pem");
    let write = |name: &str, text: String| std::fs::write(pki.at(name), text).unwrap();
    write("x509.pem", root.replace(" CERTIFICATE", " X509 CERTIFICATE"));
    write("crlf.pem", format!("Subject: CN=root\r\n# a note\r\n{}", root.replace('\n', "\r\n")));
    write("bundle.pem", format!("{}\n\n{}{root}", pki.read("other.pem"), pki.read("root.key")));
    write("dirty.pem", format!("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n{root}"));
    let host = "ironic.example";
    agree(
        &mut peer,
        &pki,
        &[
            ("leaf", "trusted.pem", host, ""),
            ("leaf", "trusted-for-servers.pem", host, ""),
            ("leaf", "trusted-with-name.pem", host, ""),
            ("leaf", "x509.pem", host, ""),
            ("leaf", "crlf.pem", host, ""),
            ("leaf", "bundle.pem", host, ""),
        ],
    );
    // A file of which nothing is left is an error of its own, and one broken certificate does not spoil the others.
    for name in ["trusted-for-clients.pem", "rejected.pem"] {
        let settings = ClientSettings { ca_file: Some(pki.at(name)), ..ClientSettings::default() };
        let error = client_config(&settings).unwrap_err().to_string();
        assert!(error.contains("no usable certificate"), "{error}");
    }
    let (port, _) = peer.serve(&pki, "leaf", "root.pem", host, "TLSv1_3");
    std::fs::create_dir(pki.at("folder")).unwrap();
    std::fs::copy(pki.at("root.pem"), pki.at("folder/a.pem")).unwrap();
    for name in ["dirty.pem", "folder"] {
        let settings = ClientSettings { ca_file: Some(pki.at(name)), ..ClientSettings::default() };
        shake(port, &settings, host).unwrap();
    }
}

#[test]
fn insecure_accepts_every_certificate_in_both_versions_of_tls() {
    let Some(mut peer) = tools() else { return };
    let pki = Pki(tempfile::tempdir().unwrap());
    pki.root("version-1", "rsa", &[], "");
    pki.root("short", "rsa1024", &[HOST], "");
    pki.root("p521", "P-521", &[HOST], "");
    pki.root("ed25519", "ed25519", &[HOST], "");
    pki.root("pss", "pss", &[HOST], "");
    pki.root("unknown", "rsa", &["1.2.3.4=critical,DER:0500"], "");
    pki.root("late", "P-256", &[], "-days -1");
    pki.root("md5", "rsa", &[], "-md5");
    pki.root("sha1", "P-256", &[], "-sha1");
    let insecure = ClientSettings { insecure: true, ..ClientSettings::default() };
    let mut refused = Vec::new();
    for name in ["version-1", "short", "p521", "ed25519", "pss", "unknown", "late", "md5", "sha1"] {
        for version in ["TLSv1_2", "TLSv1_3"] {
            let (port, _) = peer.serve(&pki, name, &format!("{name}.pem"), "ironic.example", version);
            let shaken = shake(port, &insecure, "ironic.example");
            // rustls has no TLS 1.2 with a key that is for RSA-PSS alone, whatever the certificate says.
            if (name, version) == ("pss", "TLSv1_2") {
                assert!(shaken.unwrap_err().contains("works with TLS 1.3 only"));
            } else if let Err(error) = shaken {
                refused.push(format!("{name}, {version}: {error}"));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}
