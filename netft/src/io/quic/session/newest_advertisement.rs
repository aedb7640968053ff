//! The newest advertisement of a peer. Pure.

/// Boot id and serial of the newest advertisement of a peer.
#[derive(Default)]
pub(in crate::io) struct NewestAdvertisement(Option<(u64, u32)>);

impl NewestAdvertisement {
    /// Returns whether an advertisement is not older than the newest of the same process; then it
    /// becomes the newest. Serials wrap (RFC 1982).
    pub(in crate::io) fn accept(&mut self, boot_id: u64, serial: u32) -> bool {
        let is_older = self.0.is_some_and(|(newest_boot, newest)| {
            newest_boot == boot_id && serial.wrapping_sub(newest) > u32::MAX / 2
        });
        if !is_older {
            self.0 = Some((boot_id, serial));
        }
        !is_older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_advertisement_of_the_same_process_is_ignored() {
        let mut newest = NewestAdvertisement::default();
        assert!(newest.accept(1, 5) && newest.accept(1, 5) && newest.accept(1, 6));
        assert!(!newest.accept(1, 5));
        assert!(newest.accept(2, 1), "a restarted peer counts anew");
        assert!(newest.accept(2, u32::MAX / 2 + 1) && newest.accept(2, u32::MAX));
        assert!(newest.accept(2, 0), "serials wrap");
    }
}
