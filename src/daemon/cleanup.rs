//! `netftd --cleanup`: removes what a daemon that died may have left. Safe to run at any time: it
//! does nothing while a daemon owns the adapter.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo};

use crate::{cli::failure::Failure, control::socket_path};

/// Cleans up after the adapter called `adapter`.
///
/// # Errors
/// A daemon runs, or the kernel refuses.
pub(super) fn cleanup(runtime_dir: &Path, adapter: &str) -> Result<(), Failure> {
    let socket = socket_path(runtime_dir, adapter);
    if UnixStream::connect(&socket).is_ok() {
        return Err(Failure::other(format!("netftd runs {adapter}: stop it first")));
    }
    match fs::symlink_metadata(&socket) {
        Ok(meta) if meta.file_type().is_socket() || meta.is_symlink() => {
            fs::remove_file(&socket).map_err(|error| {
                Failure::environment(format!("cannot remove {}: {error}", socket.display()))
            })?;
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::environment)?;
    runtime.block_on(remove_device(adapter))
}

/// Removes the TUN device of this name; one of another kind is not ours.
async fn remove_device(adapter: &str) -> Result<(), Failure> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Failure::environment)?;
    tokio::spawn(connection);
    let mut links = handle.link().get().match_name(adapter.to_owned()).execute();
    let link = match links.try_next().await {
        Ok(Some(link)) => link,
        Ok(None) => return Ok(()),
        Err(error) if is_no_device(&error) => return Ok(()),
        Err(error) => return Err(Failure::environment(error)),
    };
    let is_tun = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Tun)),
        _ => false,
    });
    if !is_tun {
        return Ok(());
    }
    match handle.link().del(link.header.index).execute().await {
        Err(error) if !is_no_device(&error) => {
            Err(Failure::environment(format!("cannot remove {adapter}: {error}")))
        }
        _ => Ok(()),
    }
}

fn is_no_device(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.to_io().raw_os_error() == Some(libc::ENODEV)
                || message.to_io().kind() == io::ErrorKind::NotFound
        }
        _ => false,
    }
}
