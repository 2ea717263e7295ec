//! A network in namespaces: a machine on one end of a cable, a real server (dnsmasq) on the other.

use super::*;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
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
        while namespace(&pid.to_string()) == namespace("thread-self") {
            thread::sleep(Duration::from_millis(10));
        }
        run("/usr/sbin/ip", "link add eth0 type veth peer name srv0");
        run("/usr/sbin/ip", &format!("link set srv0 netns {pid}"));
        let inside =
            |arguments: &str| run("/usr/bin/nsenter", &format!("-t {pid} -n /usr/sbin/ip {arguments}"));
        inside("addr add 2001:db8:1::1/64 dev srv0 nodad");
        inside("addr add 192.0.2.1/24 dev srv0");
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

/// A machine with these cards of this thread's namespace.
fn machine(root: &std::path::Path, cards: &[&str]) -> Host {
    for name in cards {
        let card = root.join("sys/class/net").join(name);
        std::fs::create_dir_all(card.join("device")).unwrap();
        let mac = command("/usr/sbin/ip").args(["-br", "link", "show", name]).output().unwrap().stdout;
        let mac = String::from_utf8(mac).unwrap().split_whitespace().nth(2).unwrap().to_owned();
        for (name, text) in [("type", "1"), ("address", mac.as_str()), ("carrier", "1")] {
            std::fs::write(card.join(name), text).unwrap();
        }
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
    let (ups, names, ()) = brought_up_in(given, cmdline, server, enough, |_| ())?;
    Some((ups, names))
}

/// The same, and what `after` sees in that network then; it is given what the console was told.
fn brought_up_and<T: Send + 'static>(
    cmdline: &str,
    server: &[&str],
    enough: impl Fn(&[Up], &str) -> bool + Send + 'static,
    after: impl FnOnce(&str) -> T + Send + 'static,
) -> Option<(Vec<Up>, String, T)> {
    brought_up_in(None, cmdline, server, enough, after)
}

fn brought_up_in<T: Send + 'static>(
    given: Option<&'static str>,
    cmdline: &str,
    server: &[&str],
    enough: impl Fn(&[Up], &str) -> bool + Send + 'static,
    after: impl FnOnce(&str) -> T + Send + 'static,
) -> Option<(Vec<Up>, String, T)> {
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
        let host = machine(root.path(), &["eth0"]);
        let mac = host.attribute("/sys/class/net/eth0/address").unwrap();
        let given = given.map(|text| text.replace("MAC", &mac));
        let given = given.as_deref().map(str::as_bytes);
        let (events, told) = (Events::default(), Arc::new(Mutex::new(String::new())));
        let telling = told.clone();
        events.listen(move |event| {
            if let EventKind::Notice { message } = &event.kind {
                telling.lock().unwrap().push_str(&format!("{message}\n"));
            }
        });
        let network = Network::start(&host, &cmdline, given, Vec::new(), &events);
        network.wait(Duration::from_secs(40));
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let names = std::fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap_or_default();
            let ups = network.interfaces();
            if enough(&ups, &names) || Instant::now() > deadline {
                let seen = after(&told.lock().unwrap());
                std::fs::remove_dir_all(root.path().join("sys/class/net/eth0")).unwrap(); // ends the threads
                return Some((ups, names, seen));
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

/// What the kernel shows of `eth0` and of the routes, in the network of this thread.
fn shown(arguments: &str) -> String {
    let output = command("/usr/sbin/ip").args(arguments.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

const RANGE: &str = "--dhcp-range=192.0.2.100,192.0.2.200,1h";

#[test]
fn netns_dnsmasq_gives_domains_routes_and_packet_size_in_every_combination() {
    // Each in a network of its own, a few at a time: most of it is waiting.
    for first in [0, 8] {
        thread::scope(|scope| {
            for number in first..first + 8 {
                scope.spawn(move || dnsmasq_gives(number));
            }
        });
    }
}

/// What becomes of the options whose bits are set.
fn dnsmasq_gives(number: u32) {
    let offered = [
        "--dhcp-option=15,one.lab two.lab",
        "--dhcp-option=119,eng.lab,sales.lab",
        "--dhcp-option=121,0.0.0.0/0,192.0.2.9,198.51.100.0/24,192.0.2.8",
        "--dhcp-option=26,1400",
    ];
    let [domains, list, routes, size] = [0, 1, 2, 3].map(|bit| number & (1 << bit) != 0);
    let chosen = offered.into_iter().zip([domains, list, routes, size]).filter(|(_, is_chosen)| *is_chosen);
    let options: Vec<&str> = [RANGE].into_iter().chain(chosen.map(|(option, _)| option)).collect();
    let has_search = list || domains;
    let leased = move |ups: &[Up], names: &str| {
        ups.iter().any(|up| up.address.is_ipv4()) && (!has_search || names.contains("search "))
    };
    let after = |_: &str| (shown("-4 route"), shown("link show eth0"));
    let Some((ups, names, (table, link))) = brought_up_and("ip=eth0:dhcp", &options, leased, after) else {
        return;
    };
    let up = ups.iter().find(|up| up.address.is_ipv4()).unwrap();
    let mut search: Vec<&str> = Vec::new();
    if list {
        search.extend(["eng.lab", "sales.lab"]);
    }
    if domains {
        search.extend(["one.lab", "two.lab"]);
    }
    assert_eq!(up.search, search, "{options:?}");
    assert!(search.is_empty() || names.contains(&format!("search {}\n", search.join(" "))), "{names}");
    let router = if routes { "192.0.2.9" } else { "192.0.2.1" };
    assert_eq!(up.gateway, Some(router.parse().unwrap()), "{options:?}");
    assert_eq!(table.contains("198.51.100.0/24 via 192.0.2.8"), routes, "{options:?}: {table}");
    assert_eq!(link.contains("mtu 1400"), size, "{options:?}: {link}");
}

#[test]
fn netns_two_ip_of_one_interface_its_packet_size_address_and_routes_are_set() {
    let words = "ip=192.0.2.60::192.0.2.1:24:box:eth0:none:1400:52:54:00:01:02:03 ip=[2001:db8:1::60]::[2001:db8:1::1]:64::eth0:none \
                 rd.route=198.51.100.0/24:192.0.2.7 rd.route=[2001:db8:9::]/48:[2001:db8:1::7]:eth0 ip=eth7:dhcp";
    let both = |ups: &[Up], _: &str| ups.len() == 2;
    let after = |told: &str| (shown("-4 route"), shown("-6 route"), shown("link show eth0"), told.to_owned());
    let Some((ups, _, (four, six, link, told))) = brought_up_and(words, &[RANGE], both, after) else {
        return;
    };
    assert!(told.contains("ip=eth7 names an interface that is not there; this machine has eth0 ("), "{told}");
    assert_eq!(addresses(&ups), ["192.0.2.60/24", "2001:db8:1::60/64"]);
    assert!(
        four.contains("default via 192.0.2.1") && four.contains("198.51.100.0/24 via 192.0.2.7"),
        "{four}"
    );
    assert!(
        six.contains("default via 2001:db8:1::1") && six.contains("2001:db8:9::/48 via 2001:db8:1::7"),
        "{six}"
    );
    assert!(link.contains("mtu 1400") && link.contains("52:54:00:01:02:03"), "{link}");
}

/// Whether this kernel makes interfaces of a kind; says so where it does not.
fn kernel_makes(kind: &str) -> bool {
    let made = command("/usr/bin/unshare")
        .args(["-n", "/usr/sbin/ip", "link", "add", "x0", "type", kind])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !made {
        skip(&format!("this kernel makes no interface of kind {kind}"));
    }
    made
}

#[test]
fn netns_a_bridge_is_made_as_dracut_writes_it() {
    if !nix::unistd::geteuid().is_root() {
        return skip("making a bridge needs root");
    }
    if !kernel_makes("bridge") {
        return;
    }
    let words = "bridge=br0:eth0 ip=192.0.2.60:::24::br0:none";
    let is_up = |ups: &[Up], _: &str| ups.iter().any(|up| up.name == "br0");
    let Some((ups, _, link)) = brought_up_and(words, &[RANGE], is_up, |_| shown("link show eth0")) else {
        return;
    };
    assert!(ups.iter().any(|up| up.name == "br0"), "{ups:?}");
    assert!(link.contains("master br0"), "{link}");
}

/// The far end of a cable: a process that holds a network namespace. Gone with this value.
struct Far(Child);

impl Far {
    /// Lays a cable from `near` of this thread's namespace to `srv0` of another one, which has this address there.
    fn lay(near: &str, address: &str) -> Self {
        let holder = command("/usr/bin/unshare").args(["-n", "/usr/bin/sleep", "300"]).spawn().unwrap();
        let far = Self(holder);
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        while namespace(&far.0.id().to_string()) == namespace("thread-self") {
            thread::sleep(Duration::from_millis(10));
        }
        run("/usr/sbin/ip", &format!("link add {near} type veth peer name srv0"));
        run("/usr/sbin/ip", &format!("link set srv0 netns {}", far.0.id()));
        far.inside(&format!("addr add {address} dev srv0"));
        far.inside("link set srv0 up");
        far.inside("link set lo up");
        far
    }

    fn inside(&self, arguments: &str) {
        run("/usr/bin/nsenter", &format!("-t {} -n /usr/sbin/ip {arguments}", self.0.id()));
    }

    /// A server in there, which takes every connection.
    fn listen(&self, address: &'static str) {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let listener = std::net::TcpListener::bind(address).unwrap();
            ready.send(()).unwrap();
            while listener.accept().is_ok() {}
        });
        is_ready.recv().unwrap();
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn netns_the_conductor_is_found_behind_the_second_of_two_networks() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let find = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let _nowhere = Far::lay("eth0", "192.0.2.1/24");
        let network_of_conductor = Far::lay("eth1", "203.0.113.1/24");
        network_of_conductor.inside("addr add 198.51.100.9/32 dev lo");
        network_of_conductor.listen("198.51.100.9:6385");
        let root = tempfile::tempdir().unwrap();
        let host = machine(root.path(), &["eth0", "eth1"]);
        let words = "ip=192.0.2.60::192.0.2.1:24::eth0:none ip=203.0.113.60::203.0.113.1:24::eth1:none";
        let network = Network::start(&host, &Cmdline::parse(words), None, Vec::new(), &Events::default());
        network.wait(Duration::from_secs(40));
        assert!(shown("route get 198.51.100.9").contains("dev eth0"), "the first one has the default route");
        network.find_way(&["http://198.51.100.9:6385".into()]);
        let deadline = Instant::now() + Duration::from_secs(40);
        while !shown("route get 198.51.100.9").contains("via 203.0.113.1 dev eth1") {
            assert!(Instant::now() < deadline, "{}", shown("route"));
            thread::sleep(Duration::from_millis(100));
        }
        assert!(
            shown("route get 8.8.8.8").contains("dev eth1"),
            "where the conductor is, there is the rest: {}",
            shown("route")
        );
        for card in ["eth0", "eth1"] {
            std::fs::remove_dir_all(root.path().join("sys/class/net").join(card)).unwrap(); // ends the threads
        }
    };
    thread::spawn(find).join().unwrap();
}
