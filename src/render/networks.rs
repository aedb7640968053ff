//! Output of `netft networks`. Pure.

use super::table::{ColumnAlign, TextTable};
use crate::{
    control::{
        schema::{NetworkInterfaceView, NetworkList},
        words::Word,
    },
    text::escape,
};

/// `netft networks`: a line per network, and one for each of its other interfaces.
pub fn networks_table(networks: &NetworkList) -> String {
    use ColumnAlign::{Left, Right};
    if networks.networks.is_empty() {
        return "no networks\n".to_owned();
    }
    let mut table = TextTable::new(&[
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
        let first = network.interfaces.first().map_or_else(Vec::new, interface_cells);
        let mut row = vec![
            escape(&network.prefix),
            network.state.as_str().to_owned(),
            network.role.word().to_owned(),
            network.metric.to_string(),
        ];
        row.extend(first);
        row.resize(8, String::new());
        table.add_row(row);
        for more in network.interfaces.iter().skip(1) {
            let mut row = vec![String::new(); 4];
            row.extend(interface_cells(more));
            table.add_row(row);
        }
    }
    table.render()
}

fn interface_cells(one: &NetworkInterfaceView) -> Vec<String> {
    let name = one.interface.as_deref().map_or_else(|| format!("#{}", one.number), escape);
    vec![escape(&one.node), name, one.address.to_string(), one.state.as_str().to_owned()]
}
