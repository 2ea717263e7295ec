//! A network in namespaces: a machine on one end of a cable, a real server (dnsmasq) on the other.

use super::*;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use sys::fake::{FakeRunner, RecordingKernel};

/// The server's end of the cable: a process that holds a network namespace, and the server in it. Gone with this value.
struct Server {
    holder: Child,
    server: Option<Child>,
    _leases: tempfile::TempDir,
}

#[allow(clippy::disallowed_methods)] // the cable and the server are made with the system's own tools
fn command(program: &str) -> Command {
    Command::new(program)
}

fn run(program: &str, arguments: &str) {
    let output = command(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn skip(why: &str) {
    let line = format!("SKIPPED: IPv6 in namespaces: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()); // past cargo's capture: it counts
}

impl Server {
    /// Lays a cable from `eth0` of this thread's namespace to a namespace with dnsmasq.
    fn start(options: &[&str]) -> Self {
        let holder = command("/usr/bin/unshare").args(["-n", "/usr/bin/sleep", "300"]).spawn().unwrap();
        let pid = holder.id();
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        while namespace(&pid.to_string()) == namespace("self") {
            thread::sleep(Duration::from_millis(10));
        }
        run("/usr/sbin/ip", "link add eth0 type veth peer name srv0");
        run("/usr/sbin/ip", &format!("link set srv0 netns {pid}"));
        let inside =
            |arguments: &str| run("/usr/bin/nsenter", &format!("-t {pid} -n /usr/sbin/ip {arguments}"));
        inside("addr add 2001:db8:1::1/64 dev srv0 nodad");
        inside("link set srv0 up");
        let leases = tempfile::tempdir().unwrap();
        let server = command("/usr/bin/nsenter")
            .args([
                "-t",
                &pid.to_string(),
                "-n",
                "/usr/sbin/dnsmasq",
                "--no-daemon",
                "--conf-file=/dev/null",
                "--port=0",
            ])
            .args(["--interface=srv0", "--user=root", "--pid-file=", "--enable-ra", "--log-dhcp"])
            .arg(format!("--dhcp-leasefile={}", leases.path().join("leases").display()))
            .args(options)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { holder, server: Some(server), _leases: leases }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.server.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A machine whose one card is `eth0` of this thread's namespace.
fn machine(root: &std::path::Path) -> Host {
    let card = root.join("sys/class/net/eth0");
    std::fs::create_dir_all(card.join("device")).unwrap();
    let mac = command("/usr/sbin/ip").args(["-br", "link", "show", "eth0"]).output().unwrap().stdout;
    let mac = String::from_utf8(mac).unwrap().split_whitespace().nth(2).unwrap().to_owned();
    for (name, text) in [("type", "1"), ("address", mac.as_str()), ("carrier", "1")] {
        std::fs::write(card.join(name), text).unwrap();
    }
    std::fs::create_dir_all(root.join("proc/thread-self")).unwrap();
    std::os::unix::fs::symlink("/proc/thread-self/net", root.join("proc/thread-self/net")).unwrap();
    Host::new(root, Arc::new(FakeRunner::default()), Arc::new(RecordingKernel::default()))
}

/// Brings the network up and shows what it got once `enough` is there: its addresses and its resolv.conf.
fn brought_up(
    cmdline: &str,
    server: &[&str],
    enough: impl Fn(&[Up], &str) -> bool + Send + 'static,
) -> Option<(Vec<Up>, String)> {
    brought_up_as_given(None, cmdline, server, enough)
}

/// The same with what virtual media says of the network: `MAC` stands for the card's address.
fn brought_up_as_given(
    given: Option<&'static str>,
    cmdline: &str,
    server: &[&str],
    enough: impl Fn(&[Up], &str) -> bool + Send + 'static,
) -> Option<(Vec<Up>, String)> {
    if !nix::unistd::geteuid().is_root() || !std::path::Path::new("/usr/sbin/dnsmasq").exists() {
        skip("needs root and dnsmasq (scripts/setup.sh installs it)");
        return None;
    }
    let (cmdline, server) =
        (Cmdline::parse(cmdline), server.iter().map(ToString::to_string).collect::<Vec<_>>());
    thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let _server = Server::start(&server.iter().map(String::as_str).collect::<Vec<_>>());
        let root = tempfile::tempdir().unwrap();
        let host = machine(root.path());
        let mac = host.attribute("/sys/class/net/eth0/address").unwrap();
        let given = given.map(|text| text.replace("MAC", &mac));
        let given = given.as_deref().map(str::as_bytes);
        let network = Network::start(&host, &cmdline, given, &Events::default());
        network.wait(Duration::from_secs(40));
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let names = std::fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap_or_default();
            let ups = network.interfaces();
            if enough(&ups, &names) || Instant::now() > deadline {
                std::fs::remove_dir_all(root.path().join("sys/class/net/eth0")).unwrap(); // ends the threads
                return Some((ups, names));
            }
            thread::sleep(Duration::from_millis(100));
        }
    })
    .join()
    .unwrap()
}

const DNS: &str = "--dhcp-option=option6:dns-server,[2001:db8:1::53]";
const SEARCH: &str = "--dhcp-option=option6:domain-search,lab.example";

fn addresses(ups: &[Up]) -> Vec<String> {
    ups.iter().map(|up| format!("{}/{}", up.address, up.prefix)).collect()
}

#[test]
fn netns_router_advertisements_give_an_address_and_name_servers() {
    let range = "--dhcp-range=2001:db8:1::,ra-only,64";
    let Some((ups, names)) = brought_up("ip=auto6", &[range, DNS, SEARCH], |ups, names| {
        !ups.is_empty() && names.contains("nameserver")
    }) else {
        return;
    };
    assert_eq!(ups.len(), 1, "{ups:?}");
    assert!(addresses(&ups)[0].starts_with("2001:db8:1:0:") && ups[0].prefix == 64, "{ups:?}");
    assert!(
        names.contains("nameserver 2001:db8:1::53\n") && names.contains("search lab.example\n"),
        "{names}"
    );
}

#[test]
fn netns_a_managed_network_gives_address_and_names_by_dhcpv6_and_no_ipv4_is_no_failure() {
    let range = "--dhcp-range=2001:db8:1::100,2001:db8:1::1ff,64,1h";
    let Some((ups, names)) = brought_up(
        "",
        &[range, DNS, SEARCH, "--dhcp-option=option6:ntp-server,[2001:db8:1::123]"],
        |ups, names| !ups.is_empty() && names.contains("search"),
    ) else {
        return;
    };
    assert_eq!(ups.len(), 1, "{ups:?}");
    assert!(addresses(&ups)[0].starts_with("2001:db8:1::1") && ups[0].prefix == 128, "{ups:?}");
    assert!(
        names.contains("nameserver 2001:db8:1::53\n") && names.contains("search lab.example\n"),
        "{names}"
    );
    assert_eq!(ups[0].ntp, ["2001:db8:1::123".parse::<IpAddr>().unwrap()]);
}

#[test]
fn netns_other_information_alone_is_asked_for_where_routers_say_so() {
    let range = "--dhcp-range=2001:db8:1::,ra-stateless,64";
    let ntp = "--dhcp-option=option6:ntp-server,[2001:db8:1::123]";
    let told = |ups: &[Up], _: &str| ups.iter().any(|up| !up.ntp.is_empty());
    let Some((ups, _)) = brought_up("ip=auto6", &[range, DNS, ntp], told) else { return };
    assert_eq!(ups.len(), 1, "{ups:?}");
    assert_eq!((ups[0].prefix, ups[0].ntp.len()), (64, 1), "{ups:?}");
}

#[test]
fn netns_dhcpv6_by_command_line_and_a_static_ipv6_address() {
    let range = "--dhcp-range=2001:db8:1::100,2001:db8:1::1ff,64,1h";
    let Some((ups, _)) = brought_up("ip=eth0:dhcp6", &[range], |ups, _| !ups.is_empty()) else { return };
    assert!(addresses(&ups)[0].starts_with("2001:db8:1::1"), "{ups:?}");
    let fixed = "ip=[2001:db8:1::9]::[2001:db8:1::1]:64::eth0:none nameserver=[2001:db8:1::54]";
    let Some((ups, names)) =
        brought_up(fixed, &[range], |ups, names| !ups.is_empty() && names.contains("nameserver"))
    else {
        return;
    };
    assert_eq!(addresses(&ups), ["2001:db8:1::9/64"]);
    assert_eq!(ups[0].gateway, Some("2001:db8:1::1".parse().unwrap()));
    assert!(names.contains("nameserver 2001:db8:1::54\n"), "{names}");
}

#[test]
fn netns_network_data_of_virtual_media_goes_before_dhcp() {
    let data = r#"{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "MAC", "mtu": 1400}],
        "networks": [
            {"id": "n0", "link": "a", "type": "ipv4", "ip_address": "192.0.2.9", "netmask": "255.255.255.0",
             "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}]},
            {"id": "n1", "link": "a", "type": "ipv6", "ip_address": "2001:db8:1::9", "netmask": "64"}],
        "services": [{"type": "dns", "address": "192.0.2.53"}]}"#;
    let range = "--dhcp-range=192.0.2.100,192.0.2.200,1h"; // offered in vain
    let both = |ups: &[Up], names: &str| ups.len() == 2 && names.contains("nameserver");
    let Some((ups, names)) = brought_up_as_given(Some(data), "ip=dhcp", &[range], both) else { return };
    assert_eq!(addresses(&ups), ["192.0.2.9/24", "2001:db8:1::9/64"]);
    assert_eq!(ups[0].gateway, Some("192.0.2.1".parse().unwrap()));
    assert!(names.contains("nameserver 192.0.2.53\n"), "{names}");
}
