//! What `netft networks` shows. Pure.

use super::{
    table::{Align, Table},
    text::escape,
};
use crate::control::schema::{NetworkInterface, Networks};

/// `netft networks`: a line per network, and one for each of its other interfaces.
pub fn networks(networks: &Networks) -> String {
    use Align::{Left, Right};
    if networks.networks.is_empty() {
        return "no networks\n".to_owned();
    }
    let mut table = Table::new(&[
        ("network", Left),
        ("state", Left),
        ("role", Left),
        ("metric", Right),
        ("node", Left),
        ("interface", Left),
        ("address", Left),
        ("", Left),
    ]);
    for network in &networks.networks {
        let first = network.interfaces.first().map_or_else(Vec::new, interface);
        let mut row = vec![
            escape(&network.prefix),
            escape(&network.state),
            escape(&network.role),
            network.metric.to_string(),
        ];
        row.extend(first);
        row.resize(8, String::new());
        table.row(row);
        for more in network.interfaces.iter().skip(1) {
            let mut row = vec![String::new(); 4];
            row.extend(interface(more));
            table.row(row);
        }
    }
    table.render()
}

fn interface(one: &NetworkInterface) -> Vec<String> {
    let name = one.interface.as_deref().map_or_else(|| format!("#{}", one.number), escape);
    vec![escape(&one.node), name, one.address.to_string(), escape(&one.state)]
}
