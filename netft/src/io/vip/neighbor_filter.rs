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
const IPV4_PROTOCOL: u32 = 23;
const IPV4_FRAGMENT: u32 = 20;
const IPV4_HEADER: u32 = 14;
/// More fragments, and the offset of a fragment.
const FRAGMENT_BITS: u32 = 0x3fff;
const UDP_PROTOCOL: u32 = 17;

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

/// Accepts whole IPv4 packets of UDP to a port.
pub(super) fn udp_filter(port: u16) -> Vec<SockFilter> {
    let load_half = |code: u32, offset| statement(libc::BPF_LD | libc::BPF_H | code, offset);
    let jump = |code: u32, value, yes, no| {
        SockFilter::new((libc::BPF_JMP | code | libc::BPF_K) as u16, yes, no, value)
    };
    vec![
        load_byte(IPV4_PROTOCOL),
        jump(libc::BPF_JEQ, UDP_PROTOCOL, 0, 6),
        load_half(libc::BPF_ABS, IPV4_FRAGMENT),
        jump(libc::BPF_JSET, FRAGMENT_BITS, 4, 0),
        // The length of the header, which options make longer.
        statement(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, IPV4_HEADER),
        load_half(libc::BPF_IND, IPV4_HEADER + 2),
        jump(libc::BPF_JEQ, port.into(), 0, 1),
        end_with(ACCEPT_WHOLE),
        end_with(0),
    ]
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
