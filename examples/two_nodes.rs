//! Two nodes in one process, joined by two loopback "networks", built from the library alone.
//! Data moves to the other route when the active one is taken out of use, and back afterwards.
//!
//!     cargo run --example two_nodes

use std::{error::Error, process::ExitCode, time::Duration};

use netft::{
    Adapter, RouteId,
    api::host::identity,
    config::{Config, NetworkConfig, PeerConfig, RouteOverride},
    route::{Priority, RouteChange, RouteStatus},
};
use netft_lab as lab;

/// Each node has one address on each of two prefixes of the loopback interface.
const NODES: [[&str; 2]; 2] = [["127.1.0.1", "127.2.0.1"], ["127.1.0.2", "127.2.0.2"]];

/// The lower priority wins.
const BEST: Priority = Priority(10);
const SECOND: Priority = Priority(20);

fn main() -> ExitCode {
    // The adapter needs CAP_NET_ADMIN: a user namespace of our own gives it without root.
    match lab::enter_namespaces() {
        Ok(lab::EnterOutcome::Outside(code)) => return code,
        Ok(lab::EnterOutcome::Inside) => {}
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(3);
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    match runtime.block_on(two_nodes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn two_nodes() -> Result<(), Box<dyn Error>> {
    let keys = [identity::generate_key()?, identity::generate_key()?];
    let public = [identity::public_key(&keys[0])?, identity::public_key(&keys[1])?];
    let mut nodes = Vec::new();
    for me in 0..2 {
        let you = 1 - me;
        let mut peer = PeerConfig::new(format!("node{you}"), public[you]);
        for (place, priority) in [(0, BEST), (1, SECOND)] {
            let remote = format!("{}:{}", NODES[you][place], 4000 + you).parse()?;
            let local = NODES[me][place].parse()?;
            peer = peer.with_route(
                RouteOverride::to_remote(remote).with_local(local).with_priority(priority.0),
            );
        }
        let dir = std::env::temp_dir().join(format!("netft-two-nodes-{}", std::process::id()));
        let mut config = Config::builder(format!("node{me}"), keys[me].clone())
            .with_adapter(format!("netft{me}"))
            .with_port(4000 + u16::try_from(me)?)
            .with_runtime_dir(dir)
            .with(|config| config.failover.hold_down = Duration::from_millis(200))
            .with_peer(peer);
        // Loopback addresses are used only where a network names them.
        for prefix in ["127.1.0.0/16", "127.2.0.0/16"] {
            config = config.with_network(NetworkConfig::new(prefix.parse()?));
        }
        nodes.push(Adapter::open(config.build()?).await?);
    }

    let first = carrying(&nodes[0], BEST).await?;
    println!("node0 sends to node1 on route {first}");
    let down = RouteChange { admin_down: Some(true), ..RouteChange::default() };
    nodes[0].change_route(first, down).await?;
    let second = carrying(&nodes[0], SECOND).await?;
    println!("route {first} is taken out of use: data moves to route {second}");
    let back = RouteChange { admin_down: Some(false), ..RouteChange::default() };
    nodes[0].change_route(first, back).await?;
    let third = carrying(&nodes[0], BEST).await?;
    println!("route {first} is back, its hold time is over: data returns to route {third}");

    for node in nodes {
        node.close().await;
    }
    Ok(())
}

/// The route that carries data, once it is the one of `priority`: the first to come up need not be
/// the best.
async fn carrying(node: &Adapter, priority: Priority) -> Result<RouteId, Box<dyn Error>> {
    for _ in 0..1000 {
        let snapshot = node.snapshot().await.ok_or("the adapter closed")?;
        let carrying = |route: &&RouteStatus| route.active && route.spec.priority == priority;
        if let Some(route) = snapshot.routes.iter().find(carrying) {
            return Ok(route.id);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("data did not go out on a route of priority {} within 10 s", priority.0).into())
}
