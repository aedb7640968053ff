//! Nodes that join with a token: three commands make a cluster, and what must not let anybody in.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::common::cluster::ClusterLab;
use netft::{
    NodeKey,
    api::{
        host::identity,
        join::{Joiner, request_join},
    },
    roster::{ClusterId, InviteId, InviteSecret, JoinReply, JoinToken},
};
use netft_lab::{Lab, capture::Capture, in_namespace, scheduling};
use serde_json::Value;

/// Longest time until the routes are up after the last join.
const JOIN_BOUND: Duration = Duration::from_secs(5);

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// True while a join has left nothing behind that a daemon would start with.
fn is_untouched(lab: &ClusterLab, node: usize) -> bool {
    !lab.path(node, "netft.toml").exists() && !lab.path(node, "state/netft0.roster.toml").exists()
}

fn refused_joins(lab: &ClusterLab, reason: &str) -> u64 {
    lab.json(0, &["cluster", "status"])["joins_refused"][reason].as_u64().unwrap_or_default()
}

/// Asserts that a node joined with every route up when its command ended: at least these many.
fn assert_all_up(answer: &Value, routes: u64) {
    assert_eq!(answer["missing"], Value::Array(Vec::new()), "{answer}");
    assert_eq!(answer["routes_up"], answer["routes_total"], "{answer}");
    assert!(answer["routes_up"].as_u64() >= Some(routes), "{answer}");
}

/// Asserts that no frame holds these bytes.
fn assert_absent(frames: &[Vec<u8>], bytes: &[u8]) {
    let holds = |frame: &Vec<u8>| frame.windows(bytes.len()).any(|window| window == bytes);
    assert!(!frames.iter().any(holds), "a secret crossed the network");
}

#[test]
fn three_commands_with_one_token_make_a_cluster() {
    in_namespace("three_commands_with_one_token_make_a_cluster", || {
        let lab = ClusterLab::new(3, 2);
        lab.create_and_start();
        let token = lab.invite(&["--uses", "2"]);
        let capture = Capture::start(lab.lab.node_netns(0), &Lab::nic_name(0)).unwrap();
        assert_all_up(&lab.join(1, &token), 2);
        let start = Instant::now();
        let last = lab.join(2, &token);
        scheduling::assert_within("the last join", start.elapsed(), JOIN_BOUND, start);
        assert_all_up(&last, 4);
        lab.wait_mesh(&[0, 1, 2]);
        for node in [1, 2] {
            for file in ["key", "netft.toml", "state/netft0.roster.toml"] {
                assert_eq!(mode_of(&lab.path(node, file)), 0o600, "{file}");
            }
        }
        let (frames, _) = capture.finish();
        let joins = frames.windows(1).filter(|frame| frame[0].len() > 1200).count();
        assert!(joins > 0, "the capture saw the handshakes");
        // As it stands in the token, in its text, and as the key file has it.
        assert_absent(&frames, token.rsplit('.').next().unwrap().as_bytes());
        let secret = secret_of(&token);
        assert_absent(&frames, &secret);
        let key = identity::read_key_file(&lab.path(1, "key")).unwrap();
        assert_absent(&frames, &key.0[16..48]);

        // The token is used up, but a join that was cut off may be repeated.
        let serial = lab.serial(0);
        let again = lab.join(1, &token);
        assert_eq!((again["serial"].as_u64(), lab.serial(0)), (serial, serial));
        lab.kill_started(2);
        for file in ["key", "netft.toml", "state/netft0.roster.toml"] {
            fs::remove_file(lab.path(2, file)).unwrap();
        }
        let error = lab.join_error(2, &token);
        assert!(error.contains("the token is used up"), "{error}");
        assert!(is_untouched(&lab, 2));
        assert_eq!(refused_joins(&lab, "used_up"), 1);
        // The same machine with another key is another node.
        let token = lab.invite(&[]);
        let error = lab.join_error(2, &token);
        assert!(error.contains("has a node \"n2\" with another key"), "{error}");
        lab.netft(0, &["cluster", "remove", "n2"]);
        assert_all_up(&lab.join(2, &token), 4);
    });
}

/// The bytes of a token's secret.
fn secret_of(token: &str) -> Vec<u8> {
    // Cluster and inviter are 32 bytes each, the invite 8, the secret 16; base64 has 6 bits a
    // character.
    let text = token.strip_prefix("netft-join-1.").unwrap().as_bytes();
    let digit = |byte: u8| {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        alphabet.iter().position(|known| *known == byte).unwrap() as u32
    };
    let groups = text.chunks_exact(4).flat_map(|group| {
        let bits = group.iter().fold(0, |bits, byte| bits << 6 | digit(*byte));
        bits.to_be_bytes()[1..].to_vec()
    });
    let bytes: Vec<u8> = groups.collect();
    bytes[72..88].to_vec()
}

#[test]
fn wrong_expired_and_foreign_tokens_let_nobody_in() {
    in_namespace("wrong_expired_and_foreign_tokens_let_nobody_in", || {
        let lab = ClusterLab::new(2, 1);
        lab.create_and_start();
        let serial = lab.serial(0);
        let text = lab.invite(&[]);
        let token: JoinToken = text.parse().unwrap();
        let refused = |token: &JoinToken, want: &str| {
            let error = lab.join_error(1, &token.to_string());
            assert!(error.contains(want), "{want}: {error}");
            assert!(is_untouched(&lab, 1), "{want}");
        };
        refused(
            &JoinToken { secret: InviteSecret::new([1; 16]), ..token.clone() },
            "the token's secret is wrong",
        );
        refused(&JoinToken { invite: InviteId([1; 8]), ..token.clone() }, "is not known here");
        refused(&JoinToken { inviter: NodeKey([9; 32]), ..token.clone() }, "no answer from");
        assert_eq!(refused_joins(&lab, "wrong_secret"), 1);
        assert_eq!(refused_joins(&lab, "unknown_invite"), 1);
        let error = lab.join_error(1, &text[..text.len() - 1]);
        assert!(error.contains("the join token is damaged"), "{error}");
        let short: JoinToken = lab.invite(&["--ttl", "1s"]).parse().unwrap();
        thread::sleep(Duration::from_millis(1100));
        refused(&short, "the token has expired");
        assert_eq!(refused_joins(&lab, "expired"), 1);
        let named = lab.invite(&["--name", "x"]);
        refused(&named.parse().unwrap(), "the token is for a node of another name");
        assert_eq!(lab.serial(0), serial, "nobody is in");
        let error = lab.netft_error(1, &["cluster", "invite"]);
        assert!(error.contains("netftd is not running here"), "{error}");
        // After all of that the right one still counts.
        assert_all_up(&lab.join(1, &text), 1);
    });
}

#[test]
fn many_wrong_tokens_are_refused_and_shut_out_nobody_else() {
    in_namespace("many_wrong_tokens_are_refused_and_shut_out_nobody_else", || {
        const WRONG_ATTEMPTS: usize = 100;
        let lab = ClusterLab::new(3, 1);
        lab.create_and_start();
        let text = lab.invite(&[]);
        let token: JoinToken = text.parse().unwrap();
        let wrong = JoinToken { invite: InviteId([1; 8]), ..token };
        let key = identity::generate_key().unwrap();
        let joiner = Joiner { key: &key, name: "n1", name_chosen: true, addresses: &[] };
        let answered = lab.lab.node_netns(1).run_inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let ask = || runtime.block_on(request_join(&wrong, &joiner)).ok();
            let replies: Vec<_> = (0..WRONG_ATTEMPTS).filter_map(|_| ask()).collect();
            for reply in &replies {
                assert!(matches!(JoinReply::decode(reply), Ok(JoinReply::Refused(_))));
            }
            replies.len() as u64
        });
        assert!(answered >= WRONG_ATTEMPTS as u64 / 2, "{answered} answers");
        let (unknown, unseen) =
            (refused_joins(&lab, "unknown_invite"), refused_joins(&lab, "too_many_attempts"));
        // An attempt whose reply was late is counted as well.
        assert!(unknown + unseen >= answered, "{unknown} + {unseen}, {answered} answers");
        assert!(unseen > unknown, "{unknown} looked at, {unseen} not");
        // Not even the right token from there, for a while; another node joins.
        let error = lab.join_error(1, &text);
        assert!(error.contains("too many wrong attempts"), "{error}");
        assert_all_up(&lab.join(2, &text), 1);
    });
}

#[test]
fn two_nodes_join_with_two_tokens_at_once() {
    in_namespace("two_nodes_join_with_two_tokens_at_once", || {
        let lab = ClusterLab::new(3, 1);
        lab.create_and_start();
        let tokens = [lab.invite(&[]), lab.invite(&["--name", "n2"])];
        let commands = [1, 2].map(|node| {
            let mut command = lab.join_command(node, &tokens[node - 1]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        for command in commands {
            let output = command.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        lab.wait_mesh(&[0, 1, 2]);
        // Serial 1 is the cluster's first node.
        assert_eq!([lab.serial(0), lab.serial(1), lab.serial(2)], [Some(3); 3]);
    });
}

/// Killed at one moment after another, the inviting node leaves the joiner a member or as it was,
/// and the same command completes the join.
#[test]
fn an_inviter_that_dies_in_the_middle_leaves_nothing_half_applied() {
    in_namespace("an_inviter_that_dies_in_the_middle_leaves_nothing_half_applied", || {
        const KILL_ROUNDS: u32 = 5;
        let mut lab = ClusterLab::new(2, 1);
        lab.create_and_start();
        for round in 0..KILL_ROUNDS {
            let token = lab.invite(&[]);
            let mut command = lab.join_command(1, &token);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let command = command.spawn().unwrap();
            thread::sleep(Duration::from_millis(5) * round);
            lab.kill_started(0);
            if let Some(mut daemon) = lab.daemons[0].take() {
                daemon.kill().unwrap();
                daemon.wait().unwrap();
            }
            lab.start(0);
            let joined = command.wait_with_output().unwrap().status.success();
            assert!(joined || is_untouched(&lab, 1), "round {round}");
            lab.wait("n0 is back", |lab| lab.serial(0).is_some());
            let token = lab.invite(&[]);
            assert_all_up(&lab.join(1, &token), 1);
            lab.netft(0, &["cluster", "remove", "n1"]);
            lab.wait("n1 knows", |lab| lab.json(1, &["cluster", "status"])["member"] == false);
            lab.kill_started(1);
            for file in ["key", "netft.toml", "state/netft0.roster.toml"] {
                fs::remove_file(lab.path(1, file)).unwrap();
            }
        }
    });
}

#[test]
fn a_removed_node_does_not_come_back_with_the_token_that_it_has() {
    in_namespace("a_removed_node_does_not_come_back_with_the_token_that_it_has", || {
        let lab = ClusterLab::new(3, 1);
        lab.create_and_start();
        let token = lab.invite(&["--uses", "5"]);
        lab.join(1, &token);
        lab.join(2, &token);
        lab.netft(0, &["cluster", "remove", "n2"]);
        assert_eq!(lab.peers(0), ["n1"]);
        lab.wait("gone at n1", |lab| lab.peers(1) == ["n0"]);
        let error = lab.join_error(2, &token);
        assert!(error.contains("the token was closed"), "{error}");
        assert_eq!(lab.peers(0), ["n1"]);
        assert_eq!(refused_joins(&lab, "closed"), 1);
    });
}

/// As the book says: a new cluster with the same nodes, whose keys and addresses stay.
#[test]
fn a_cluster_whose_key_is_lost_gets_a_new_one_and_keeps_its_addresses() {
    in_namespace("a_cluster_whose_key_is_lost_gets_a_new_one_and_keeps_its_addresses", || {
        let mut lab = ClusterLab::new(2, 1);
        lab.create_and_start();
        lab.join(1, &lab.invite(&[]));
        let nodes = |lab: &ClusterLab| {
            let nodes = lab.json(0, &["cluster", "show"])["nodes"].clone();
            let nodes = nodes.as_array().unwrap().iter();
            nodes.map(|node| (node["key"].clone(), node["address"].clone())).collect::<Vec<_>>()
        };
        let before = nodes(&lab);
        let id = lab.json(0, &["cluster", "show"])["id"].clone();
        for node in 0..2 {
            lab.kill_started(node);
            fs::remove_file(lab.path(node, "state/netft0.roster.toml")).unwrap();
        }
        fs::remove_file(lab.path(0, "state/netft0.cluster-key")).unwrap();
        lab.create_and_start();
        let token = lab.invite(&[]);
        // By standard input, and without a start.
        let config = lab.path(1, "netft.toml");
        let args = ["cluster", "join", "-", "--no-start", "--config", config.to_str().unwrap()];
        let mut command = lab.netft_command(1, &args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut command = command.spawn().unwrap();
        command.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let output = command.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("netftd is not running"), "{text}");
        lab.start(1);
        lab.wait_mesh(&[0, 1]);
        assert_eq!(nodes(&lab), before);
        assert_ne!(lab.json(1, &["cluster", "show"])["id"], id);
        // A token of the former cluster, or of any other one, is refused before it is used.
        let other = JoinToken { cluster: ClusterId([1; 32]), ..token.parse().unwrap() };
        let error = lab.join_error(1, &other.to_string());
        assert!(error.contains("this node is in the cluster \"prod\""), "{error}");
    });
}

/// A site's roll-out: one token, one command a node, one after the other.
fn roll_out(nodes: usize) {
    let lab = ClusterLab::new(nodes, 1);
    lab.create_and_start();
    let token = lab.invite(&["--uses", &(nodes - 1).to_string()]);
    let start = Instant::now();
    for node in 1..nodes {
        let answer = lab.join(node, &token);
        assert_eq!(answer["nodes"], node as u64 + 1, "{answer}");
        assert_all_up(&answer, node as u64);
    }
    eprintln!("{nodes} nodes joined in {:?}", start.elapsed());
    lab.wait_mesh(&(0..nodes).collect::<Vec<_>>());
    assert_eq!(lab.json(0, &["cluster", "status"])["joins_accepted"], nodes as u64 - 1);
}

#[test]
fn six_nodes_join_in_a_loop() {
    in_namespace("six_nodes_join_in_a_loop", || roll_out(6));
}

#[test]
#[ignore = "16 daemons: for a machine that has nothing else to do"]
fn sixteen_nodes_join_in_a_loop() {
    in_namespace("sixteen_nodes_join_in_a_loop", || roll_out(16));
}
