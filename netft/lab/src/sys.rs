//! Calls that need `unsafe`: hooks of a child between `fork` and `exec`, and packet sockets.
//!
//! A hook between `fork` and `exec` may only make async-signal-safe calls: every string is built
//! before the fork, the hook makes system calls only.

#![expect(unsafe_code, reason = "pre_exec hooks and the address of a packet socket")]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// Makes `command` start in its own network and mount namespace, as root of its own user
/// namespace; with `user` false without the user namespace (real root where those are refused).
pub(crate) fn unshare_at_spawn(command: &mut Command, user: bool) {
    let uid = format!("0 {} 1", rustix::process::geteuid().as_raw());
    let gid = format!("0 {} 1", rustix::process::getegid().as_raw());
    let hook = move || {
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        if user {
            unshare(flags | CloneFlags::CLONE_NEWUSER)?;
            // user_namespaces(7): gid_map stays closed until setgroups is given up.
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", uid.as_bytes())?;
            write_file(c"/proc/self/gid_map", gid.as_bytes())?;
        } else {
            unshare(flags)?;
        }
        die_with_parent()
    };
    // SAFETY: the hook only makes system calls on memory allocated before the fork.
    unsafe { command.pre_exec(hook) };
}

/// Makes `command` start in the network namespace `netns`, and die with its parent thread.
pub(crate) fn join_netns_at_spawn(command: &mut Command, netns: OwnedFd) {
    let hook = move || {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
        die_with_parent()
    };
    // SAFETY: the hook only makes system calls on memory allocated before the fork.
    unsafe { command.pre_exec(hook) };
}

fn die_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn write_file(path: &CStr, text: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = rustix::io::write(&file, text)?;
    if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// A raw packet socket bound to the interface `name` of the calling thread's namespace: it
/// receives every frame that passes the interface in either direction.
pub(crate) fn packet_socket(name: &str) -> io::Result<Socket> {
    const ETH_P_ALL: u16 = 3;
    // packet(7): a socket with a protocol receives from every interface until it is bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let index = interface_index_here(name)?;
    let mut storage = SockAddrStorage::zeroed();
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address);
    // SAFETY: the storage is at least as large and as aligned as any socket address.
    unsafe { std::ptr::copy_nonoverlapping(&raw mut address, storage.view_as(), 1) };
    // SAFETY: the storage holds a whole `sockaddr_ll` of that length.
    let address = unsafe { SockAddr::new(storage, length as libc::socklen_t) };
    socket.bind(&address)?;
    Ok(socket)
}

/// A [`packet_socket`] for a relay or an inspector: it receives incoming frames only, and every
/// frame has the kernel's `virtio_net_hdr` in front, in both directions.
pub(crate) fn relay_socket(name: &str) -> io::Result<Socket> {
    // linux/if_packet.h
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    let socket = packet_socket(name)?;
    for option in [PACKET_IGNORE_OUTGOING, libc::PACKET_VNET_HDR] {
        let on = 1;
        let length = size_of_val(&on) as libc::socklen_t;
        let fd = socket.as_raw_fd();
        // SAFETY: the option's value is an int that lives through the call.
        let done = unsafe {
            libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const on).cast(), length)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

/// The index of the interface `name` in the calling thread's namespace.
fn interface_index_here(name: &str) -> io::Result<i32> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index as i32) }
}
