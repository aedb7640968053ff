//! The file of the overrides: one line with the format, its version and the digest of the rest,
//! then JSON. Replaced as a whole, so that a crash leaves the old one or the new one.

use std::{
    fs,
    fs::DirBuilder,
    io,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use netft::api::overrides::OperatorOverrides;
use ring::digest::{SHA256, digest};

use super::stored::{FORMAT_VERSION, StoredOverrides};
use crate::cluster::store::{read_bounded, write_atomic};

/// First word of the file.
const FORMAT_NAME: &str = "netft-overrides";
/// Largest file that is read, bytes: several times what the bounds of the overrides allow.
const MAX_FILE_BYTES: usize = 8 << 20;

/// The file of one adapter's overrides.
#[derive(Clone, Debug)]
pub(super) struct OverrideFile {
    path: PathBuf,
}

impl OverrideFile {
    pub(super) fn new(state_dir: &Path, adapter: &str) -> Self {
        Self { path: state_dir.join(format!("{adapter}.overrides")) }
    }

    /// The overrides in the file; none when there is no file.
    ///
    /// # Errors
    /// The file cannot be used, as a whole; it is set aside.
    pub(super) fn load(&self, wall_now_ms: u64) -> Result<OperatorOverrides, String> {
        self.read(wall_now_ms).map_err(|reason| {
            let aside = self.path.with_extension("overrides.refused");
            let fate = match fs::rename(&self.path, &aside) {
                Ok(()) => format!("set aside as {}", aside.display()),
                Err(error) => format!("and it cannot be set aside: {error}"),
            };
            let path = self.path.display();
            format!(
                "{path}: {reason}; {fate}: drains and changes of the former run are not in force"
            )
        })
    }

    /// Checks that the file can be used, and leaves it as it is.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn check(&self, wall_now_ms: u64) -> Result<(), String> {
        let path = self.path.display();
        self.read(wall_now_ms).map(drop).map_err(|reason| format!("{path}: {reason}"))
    }

    fn read(&self, wall_now_ms: u64) -> Result<OperatorOverrides, String> {
        match read_bounded(&self.path, MAX_FILE_BYTES) {
            Ok(bytes) if bytes.len() > MAX_FILE_BYTES => {
                Err(format!("it has more than {} MiB", MAX_FILE_BYTES >> 20))
            }
            Ok(bytes) => decode(&bytes, wall_now_ms),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(OperatorOverrides::default()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// Of the kernel; the former file is there as it was.
    pub(super) fn save(&self, overrides: &OperatorOverrides) -> Result<(), String> {
        let fail = |error: io::Error| format!("cannot write {}: {error}", self.path.display());
        let text = encode(overrides).map_err(|error| fail(error.into()))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.and_then(|()| write_atomic(&self.path, text.as_bytes())).map_err(fail)
    }
}

fn encode(overrides: &OperatorOverrides) -> serde_json::Result<String> {
    let body = serde_json::to_string(&StoredOverrides::from(overrides))?;
    Ok(format!("{FORMAT_NAME} {FORMAT_VERSION} {}\n{body}\n", digest_text(body.as_bytes())))
}

fn decode(bytes: &[u8], wall_now_ms: u64) -> Result<OperatorOverrides, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "this is no text".to_owned())?;
    let (head, body) = text.split_once('\n').ok_or("it ends in its first line")?;
    let head: Vec<_> = head.split(' ').collect();
    let [FORMAT_NAME, version, known] = head[..] else {
        return Err("this is no file of overrides".to_owned());
    };
    if version != FORMAT_VERSION.to_string() {
        return Err(format!(
            "its version is {version}, this netftd reads {FORMAT_VERSION}: give the \
             overrides again, or put the file back for the netftd that wrote it"
        ));
    }
    let body = body.strip_suffix('\n').ok_or("its end is missing")?;
    if digest_text(body.as_bytes()) != known {
        return Err("its digest is wrong: it was damaged or changed by hand".to_owned());
    }
    let stored: StoredOverrides = serde_json::from_str(body).map_err(|error| error.to_string())?;
    stored.to_overrides(wall_now_ms)
}

fn digest_text(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{net::SocketAddr, time::Duration};

    use netft::{
        Time,
        api::overrides::{NamedRoute, PolicyOverride, TimeLimit},
        route::{
            Delay, PeerPolicies, Policy, Priority, RouteChange, Threshold, Timing, TrafficClass,
            policy::{PortRange, Protocol},
        },
    };

    use super::*;

    const ONE_HOUR: Duration = Duration::from_secs(3600);

    fn ends(number: u8) -> NamedRoute {
        let addr = |node: u8| SocketAddr::from(([10, number, 0, node], 3343));
        NamedRoute { peer: "b".to_owned(), local: addr(1), remote: addr(2) }
    }

    /// One override of every kind.
    fn all_kinds() -> OperatorOverrides {
        let mut overrides = OperatorOverrides::default();
        let limit = Some(TimeLimit::new(Time::ZERO, 5000, ONE_HOUR));
        overrides.drain_interface("eth0", limit, &[]).unwrap();
        overrides.drain_interface("eth1", None, &[]).unwrap();
        overrides.use_route(&ends(1), "eth0").unwrap();
        overrides.drain_route(&ends(2), limit).unwrap();
        overrides.drain_route(&ends(3), None).unwrap();
        let timing = Timing {
            delay: Delay::from_millis(50).unwrap(),
            threshold: Threshold::new(9).unwrap(),
        };
        let change = RouteChange {
            timing: Some(timing),
            priority: Some(Priority(7)),
            admin_down: Some(true),
            drain: None,
        };
        overrides.change_route(&ends(4), &change).unwrap();
        let class = TrafficClass {
            protocol: Some(Protocol::Udp),
            ports: PortRange::new(5, 9),
            min_size: Some(1),
            ..TrafficClass::new(Policy::Duplicate)
        };
        let policies = PeerPolicies::new(Policy::Balance).with_classes(vec![class]).unwrap();
        let configured = PeerPolicies::default();
        overrides.set_policies(PolicyOverride { peer: "b".to_owned(), policies, configured });
        overrides
    }

    #[test]
    fn every_kind_of_override_survives_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let file = OverrideFile::new(&folder.path().join("state"), "netft0");
        assert_eq!(file.load(0), Ok(OperatorOverrides::default()));
        file.save(&OperatorOverrides::default()).unwrap();
        file.save(&all_kinds()).unwrap();
        assert_eq!(file.load(5000), Ok(all_kinds()));
        let names: Vec<_> = fs::read_dir(folder.path().join("state")).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing else is left: {names:?}");
        // Half an hour later half an hour is left; after two hours the limited drains are over.
        let half = file.load(5000 + 1_800_000).unwrap();
        assert_eq!(half.next_end(), Some(Time::ZERO + ONE_HOUR / 2));
        let late = file.load(5000 + 7_200_000).unwrap();
        assert!(late.for_interface("eth0").is_none() && !late.is_drained(&ends(2), ""));
        assert!(late.for_interface("eth1").is_some() && late.is_drained(&ends(3), ""));
    }

    #[test]
    fn a_file_that_is_damaged_anywhere_is_refused_as_a_whole_and_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = OverrideFile::new(folder.path(), "netft0");
        let whole = encode(&all_kinds()).unwrap().into_bytes();
        let refuse = |bytes: &[u8]| {
            fs::write(&file.path, bytes).unwrap();
            assert!(file.check(5000).is_err() && file.path.exists(), "a check changes nothing");
            let problem = file.load(5000).unwrap_err();
            assert!(problem.contains("set aside as") && !problem.contains('\n'), "{problem}");
            assert!(!file.path.exists());
            let aside = folder.path().join("netft0.overrides.refused");
            assert_eq!(fs::read(&aside).unwrap(), bytes);
            assert_eq!(
                file.load(5000),
                Ok(OperatorOverrides::default()),
                "the next start is clean"
            );
            problem
        };
        for len in 0..whole.len() {
            refuse(&whole[..len]);
        }
        for place in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x04;
            refuse(&bytes);
        }
        let later = String::from_utf8(whole).unwrap().replacen(" 1 ", " 2 ", 1);
        assert!(refuse(later.as_bytes()).contains("its version is 2, this netftd reads 1"));
        for body in [
            r#"{"routes":[],"interfaces":[],"peers":[],"other":1}"#,
            r#"{"routes":[],"interfaces":[{"name":"eth0","limit":7}],"peers":[]}"#,
            r#"{"routes":[{"peer":"b","local":"x","remote":"y"}],"interfaces":[],"peers":[]}"#,
            r#"{"routes":[],"interfaces":[],"peers":[{"peer":"b","policy":"failover"}]}"#,
        ] {
            let head = format!("{FORMAT_NAME} {FORMAT_VERSION} {}", digest_text(body.as_bytes()));
            refuse(format!("{head}\n{body}\n").as_bytes());
        }
        let huge = vec![b' '; MAX_FILE_BYTES + 1];
        assert!(refuse(&huge).contains("more than 8 MiB"));
    }
}
