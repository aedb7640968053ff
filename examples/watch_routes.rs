//! Watches a node's events from the library: what the daemon's log is made of.
//!
//!     cargo run --example watch_routes
//!
//! Two nodes on loopback; the second one stops after a second, and the first one's event stream
//! shows its route come up, and go down one detection time after the stop.

use std::{error::Error, process::ExitCode, time::Duration};

use netft::{
    Adapter,
    api::host::identity,
    config::{Config, NetworkConfig, PeerConfig, RouteOverride},
    route::EventKind,
};
use netft_lab as lab;

fn main() -> ExitCode {
    match lab::enter_namespaces() {
        Ok(lab::EnterOutcome::Outside(code)) => return code,
        Ok(lab::EnterOutcome::Inside) => {}
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(3);
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    match runtime.block_on(watch()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn watch() -> Result<(), Box<dyn Error>> {
    let keys = [identity::generate_key()?, identity::generate_key()?];
    let public = [identity::public_key(&keys[0])?, identity::public_key(&keys[1])?];
    let mut nodes = Vec::new();
    for (me, you) in [(0, 1), (1, 0)] {
        let remote = format!("127.3.0.{}:{}", you + 1, 4100 + you).parse()?;
        let local = format!("127.3.0.{}", me + 1).parse()?;
        let route = RouteOverride::to_remote(remote).with_local(local);
        let mut config = Config::builder(format!("node{me}"), keys[me].clone())
            .with_adapter(format!("netft{me}"))
            .with_port(4100 + u16::try_from(me)?)
            .with_runtime_dir(
                std::env::temp_dir().join(format!("netft-watch-{}", std::process::id())),
            )
            .with_peer(PeerConfig::new(format!("node{you}"), public[you]).with_route(route));
        // Loopback addresses are used only where a network names them.
        let prefix = "127.3.0.0/16".parse()?;
        config = config.with_network(NetworkConfig::new(prefix));
        nodes.push(Adapter::open(config.build()?).await?);
    }
    let second = nodes.pop().ok_or("two nodes")?;
    let first = nodes.pop().ok_or("two nodes")?;
    let mut events = first.events();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        second.close().await;
    });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while let Ok(Some(event)) = tokio::time::timeout_at(deadline, events.next()).await {
        match event {
            Ok(event) => {
                println!("{} {:?}", event.at, event.kind);
                if matches!(event.kind, EventKind::RemoteUnreachable { .. }) {
                    first.close().await;
                    return Ok(());
                }
            }
            Err(skipped) => println!("{skipped}"),
        }
    }
    Err("the second node was not missed within 10 s".into())
}
