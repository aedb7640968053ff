//! Socket filter that wakes netftd only for messages about its floating addresses. Pure.

use std::net::IpAddr;

use socket2::SockFilter;

/// Everything of a frame.
const ACCEPT_WHOLE: u32 = 0x0004_0000;

/// Offsets from the start of an Ethernet frame.
const ARP_SENDER: u32 = 28;
const ARP_TARGET: u32 = 38;
const IPV6_NEXT_HEADER: u32 = 20;
const ICMPV6_TYPE: u32 = 54;
/// The last four bytes of the target of a neighbor message; the rest is compared in netftd.
const NEIGHBOR_TARGET_END: u32 = 74;
const ICMPV6_PROTOCOL: u32 = 58;
const NEIGHBOR_SOLICITATION: u32 = 135;
const NEIGHBOR_ADVERTISEMENT: u32 = 136;

fn statement(code: u32, value: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, value)
}

/// Skips the next instruction unless the loaded value is `value`.
fn if_equal(value: u32) -> SockFilter {
    SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, value)
}

fn load_word(offset: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn load_byte(offset: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset)
}

fn end_with(value: u32) -> SockFilter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

/// Accepts ARP packets whose sender or target is one of `addrs`.
pub(super) fn arp_filter(addrs: &[IpAddr]) -> Vec<SockFilter> {
    let mut program = Vec::new();
    for offset in [ARP_SENDER, ARP_TARGET] {
        program.push(load_word(offset));
        for addr in addrs {
            if let IpAddr::V4(v4) = addr {
                program.extend([if_equal(u32::from(*v4)), end_with(ACCEPT_WHOLE)]);
            }
        }
    }
    program.push(end_with(0));
    program
}

/// Accepts neighbor messages whose target ends as one of `addrs` does.
pub(super) fn ndp_filter(addrs: &[IpAddr]) -> Vec<SockFilter> {
    let skip = |count: u32| statement(libc::BPF_JMP | libc::BPF_JA, count);
    let mut program = vec![
        load_byte(IPV6_NEXT_HEADER),
        if_equal(ICMPV6_PROTOCOL),
        skip(1),
        end_with(0),
        load_byte(ICMPV6_TYPE),
        if_equal(NEIGHBOR_ADVERTISEMENT),
        skip(3),
        if_equal(NEIGHBOR_SOLICITATION),
        skip(1),
        end_with(0),
        load_word(NEIGHBOR_TARGET_END),
    ];
    for addr in addrs {
        if let IpAddr::V6(v6) = addr {
            let [.., a, b, c, d] = v6.octets();
            program.extend([if_equal(u32::from_be_bytes([a, b, c, d])), end_with(ACCEPT_WHOLE)]);
        }
    }
    program.push(end_with(0));
    program
}
