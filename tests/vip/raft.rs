//! Floating addresses whose owner raft decides on: three nodes, and a client on the segment.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    commands::has_programs,
    owner_lab::{Fault, OwnerLab, VIP_ADDRESS},
    wait_until,
};
use netft_lab::{Netns, in_namespace, scheduling};

/// A service that an address follows.
const ROLE_PORT: u16 = 7100;
/// A takeover: the lease, its margin, and the announcement.
const TAKEOVER_BOUND: Duration = Duration::from_millis(800);
const TEST_ROUNDS: usize = 3;

/// F-60: with real processes and kernels.
#[test]
fn f_60_the_address_goes_on_and_never_has_two_owners() {
    in_namespace("f_60_the_address_goes_on_and_never_has_two_owners", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let web = format!(
            "[[vip]]\nname = \"web\"\naddress = \"{VIP_ADDRESS}/24\"\nownership = \"raft\"\n"
        );
        let mut test = OwnerLab::start_raft(folder.path(), &web);
        let start = Instant::now();
        test.await_owner(|_| true);
        // Every node has joined, so that any of them may be lost.
        thread::sleep(Duration::from_secs(3));
        let mut gaps = Vec::new();
        for round in 0..TEST_ROUNDS {
            for fault in [Fault::Killed, Fault::Stopped, Fault::CutOff] {
                let owner = test.await_owner(|_| true);
                let began = Instant::now();
                test.inject_fault(usize::from(owner), fault);
                let next = test.await_owner(|number| number != owner);
                let gap = began.elapsed();
                println!("round {round}: n{owner} {fault:?}, n{next} answers after {gap:?}");
                gaps.push(gap);
                test.repair(usize::from(owner), fault);
                // It rejoins before the next one is lost.
                thread::sleep(Duration::from_secs(3));
            }
        }
        gaps.sort();
        let at = |percent: usize| gaps[(gaps.len() - 1) * percent / 100];
        println!("{} takeovers: p50 {:?}, p99 {:?}", gaps.len(), at(50), at(99));
        test.assert_one_owner(50);
        scheduling::assert_within("half of the takeovers", at(50), TAKEOVER_BOUND, start);
    });
}

/// A service on a node that a check finds; ends when dropped.
struct Role(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Role {
    fn begin(netns: &Netns) -> Self {
        let listener = netns.run_inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, ROLE_PORT)));
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !is_done.load(Relaxed) {
                drop(listener.accept());
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self(is_over, Some(thread))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

/// F-95.
#[test]
fn f_95_an_address_goes_where_its_rules_want_it() {
    in_namespace("f_95_an_address_goes_where_its_rules_want_it", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let vip = |name: &str, number: u8, rules: &str| {
            let head = format!("[[vip]]\nname = {name:?}\naddress = \"10.1.0.{number}\"\n");
            format!("{head}ownership = \"raft\"\n{rules}\n")
        };
        let check = format!(
            "follow = true\ncheck = {{ tcp = \"127.0.0.1:{ROLE_PORT}\", interval = 100, \
             timeout = 100, rise = 1, fall = 1 }}"
        );
        let vips = vip("home", 80, "preferred = [\"b\", \"c\"]\nfailback = 500")
            + &vip("stay", 81, "preferred = [\"b\"]")
            + &vip("mate", 82, "placement = { together_with = [\"home\"] }")
            + &vip("away", 83, "placement = { apart_from = [\"home\"] }")
            + &vip("role", 84, &check);
        let mut test = OwnerLab::start_raft(folder.path(), &vips);
        test.wait_owners(&[("home", "b"), ("stay", "b"), ("mate", "b")]);
        assert_ne!(test.owner_of("away").as_deref(), Some("b"));
        assert_eq!(test.owner_of("role"), None, "no check passes");
        let on_a = Role::begin(test.lab.node_netns(0));
        test.wait_owners(&[("role", "a")]);
        // Both pass: the one that began last, by more than messages take, leads the service.
        thread::sleep(Duration::from_millis(500));
        let on_c = Role::begin(test.lab.node_netns(2));
        test.wait_owners(&[("role", "c")]);
        drop(on_c);
        test.wait_owners(&[("role", "a")]);
        // The second of the preferred nodes, with its company, and then back.
        thread::sleep(Duration::from_secs(2));
        test.inject_fault(1, Fault::Killed);
        test.wait_owners(&[("home", "c"), ("mate", "c")]);
        let stayed = test.owner_of("stay").unwrap();
        test.repair(1, Fault::Killed);
        test.wait_owners(&[("home", "b"), ("mate", "b"), ("role", "a")]);
        assert_ne!(test.owner_of("away").as_deref(), Some("b"));
        assert_eq!(test.owner_of("stay"), Some(stayed), "it does not return by itself");
        drop(on_a);
    });
}

/// F-98.
#[test]
fn f_98_the_engine_is_seen_and_takes_up_what_a_reload_adds() {
    in_namespace("f_98_the_engine_is_seen_and_takes_up_what_a_reload_adds", || {
        if !has_programs(&["nft", "ip"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let head = |name: &str, number: u8| {
            format!("[[vip]]\nname = {name:?}\naddress = \"10.1.0.{number}\"\n")
        };
        let web = head("web", 80) + "ownership = \"raft\"\n";
        let mut test = OwnerLab::start_raft(folder.path(), &web);
        test.await_owner(|_| true);
        let engine = |node: usize| {
            let status = test.daemons[node].as_ref().unwrap().get_json("/v1/status");
            status.unwrap_or_default()["ownership"].clone()
        };
        let is_settled = |node: usize| {
            let engine = engine(node);
            let voters = engine["voters"].as_array().cloned().unwrap_or_default();
            let reached = voters.iter().filter(|voter| voter["reached"] == true).count();
            engine["leader"].is_string() && reached == 3
        };
        wait_until("a leader", || (0..3).all(is_settled));
        let (first, second) = (engine(0), engine(1));
        assert_eq!((&first["leader"], &first["term"]), (&second["leader"], &second["term"]));
        assert_eq!(first["problem"], serde_json::Value::Null);
        let text = test.ask_operator(0, &["status"]);
        assert!(text.contains("leads in term") && text.contains("3 of 3 voters"), "{text}");
        let why = test.ask_operator(0, &["vip", "why", "web"]);
        assert!(why.contains("no node owned it"), "{why}");
        let metrics = test.ask_operator(0, &["metrics"]);
        assert!(metrics.contains("netft_ownership_voter_reached{voter=\"c\"} 1"), "{metrics}");
        // An address that a reload adds has an owner; one that it changes keeps its own.
        let owner = test.owner_of("web");
        let added = head("db", 81) + "ownership = \"raft\"\n";
        for node in 0..3 {
            let path = test.site.config_path(node);
            let text = std::fs::read_to_string(&path).unwrap();
            let changed = text.replace(&web, &format!("{web}failback = 700\n{added}"));
            std::fs::write(&path, changed).unwrap();
            let done = test.ask_operator(node, &["reload"]);
            assert!(done.contains("db"), "{done}");
            if node == 0 {
                wait_until("the difference", || {
                    let text = test.ask_operator(0, &["vip", "list"]);
                    text.contains("db: it is not defined there") && text.contains("web: its def")
                });
                let events = test.ask_operator(1, &["events", "-n", "100"]);
                assert!(events.contains("it is defined there, and not here, on a"), "{events}");
            }
        }
        let are_same = |test: &OwnerLab| {
            (0..3).all(|node| {
                let text = test.ask_operator(node, &["vip", "list"]);
                text.matches(": normal since").count() == 2 && !text.contains("different")
            })
        };
        wait_until("the same definitions", || are_same(&test));
        wait_until("an owner", || test.owner_of("db").is_some());
        assert_eq!(test.owner_of("web"), owner);
        let view = test.daemons[0].as_ref().unwrap().get_json("/v1/vips").unwrap();
        let history = view["vips"].to_string();
        assert!(!history.contains("it was removed"), "{history}");
        // One that is removed is taken from its owner.
        for node in 0..3 {
            let path = test.site.config_path(node);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace(&added, "")).unwrap();
            test.ask_operator(node, &["reload"]);
        }
        wait_until("the removal", || are_same(&test));
        let text = test.ask_operator(0, &["vip", "list"]);
        assert!(!text.contains("db"), "{text}");
        test.inject_fault(2, Fault::Killed);
        wait_until("c is missed", || {
            let text = test.ask_operator(0, &["vip", "list"]);
            text.contains("2 of 3 voters reached (not c)")
        });
        wait_until("c is down", || {
            let text = test.ask_operator(0, &["vip", "list"]);
            text.contains("partner c: partner-down")
                && test.ask_operator(0, &["peer", "show", "c"]).contains("partner-down")
        });
    });
}

/// F-100.
#[test]
fn f_100_a_voter_with_a_full_disk_says_so_and_votes_again_with_room() {
    in_namespace("f_100_a_voter_with_a_full_disk_says_so_and_votes_again_with_room", || {
        if !has_programs(&["nft", "ip", "mount"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        // The preferred order keeps the address off the node whose disk is full.
        let web = format!(
            "[[vip]]\nname = \"web\"\naddress = \"{VIP_ADDRESS}/24\"\nownership = \"raft\"\n\
             preferred = [\"a\", \"b\"]\n"
        );
        let disk = folder.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs"];
        let done = Command::new("mount").args(options).arg(&disk).status().unwrap();
        assert!(done.success());
        let common = format!("{web}\n[ownership]\nvoters = [\"a\", \"b\", \"c\"]\n");
        let folders = [folder.path(), folder.path(), &disk];
        let store = |(node, folder): (usize, &&Path)| {
            format!("store = {:?}", folder.join(format!("store{node}")))
        };
        let stores: Vec<_> = folders.iter().enumerate().map(store).collect();
        let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
        let mut test = OwnerLab::start(OwnerLab::hosts(), &common, &stores);
        test.await_owner(|_| true);
        let problem = |test: &OwnerLab| {
            let status = test.daemons[2].as_ref().unwrap().get_json("/v1/status");
            let engine = status.unwrap_or_default()["ownership"].clone();
            engine["problem"].as_str().map(str::to_owned)
        };
        wait_until("c votes", || test.ask_operator(2, &["status"]).contains("3 of 3 voters"));
        assert_eq!(problem(&test), None);
        let rest = disk.join("other data");
        let mut file = std::fs::File::create(&rest).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        drop(file);
        // Decisions are written until the disk refuses one.
        let mut moves = 0;
        while problem(&test).is_none() {
            let to = ["a", "b"][moves % 2];
            test.ask_operator(0, &["vip", "move", "web", "--to", to]);
            moves += 1;
            assert!(moves < 400, "the store never grew:\n{}", test.all_logs());
        }
        let text = problem(&test).unwrap();
        assert!(text.contains("o space left on device") && text.contains("store2"), "{text}");
        assert!(text.contains("does not vote"), "{text}");
        let shown = test.ask_operator(2, &["vip", "show", "web"]);
        assert!(shown.contains("o space left on device"), "{shown}");
        // The others decide on.
        test.ask_operator(0, &["vip", "move", "web", "--to", "b"]);
        test.wait_owners(&[("web", "b")]);
        std::fs::remove_file(&rest).unwrap();
        wait_until("c votes again", || problem(&test).is_none());
        let shown = test.ask_operator(2, &["vip", "show", "web"]);
        assert!(!shown.contains("o space left on device"), "{shown}");
        // Without b, the majority needs the vote of c.
        test.inject_fault(1, Fault::Killed);
        test.await_owner(|owner| owner != 1);
    });
}
