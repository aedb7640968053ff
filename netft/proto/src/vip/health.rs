//! Health of the service behind an address: results of its check, damped.

/// Counts passes and failures in a row. Nothing is known before the first result, which decides by
/// itself: a node that starts must not wait for `rise` to say that its service is there.
#[derive(Clone, Copy, Debug)]
pub struct HealthCounter {
    rise: u32,
    fall: u32,
    is_healthy: Option<bool>,
    /// Results in a row that contradict `is_healthy`.
    against: u32,
}

impl HealthCounter {
    /// `rise` passes make a failed service healthy, `fall` failures a healthy one failed.
    pub const fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, is_healthy: None, against: 0 }
    }

    /// Takes a result; returns the new health if it changed.
    pub fn on_result(&mut self, is_pass: bool) -> Option<bool> {
        let needed = match self.is_healthy {
            None => 1,
            Some(healthy) if healthy == is_pass => {
                self.against = 0;
                return None;
            }
            Some(true) => self.fall,
            Some(false) => self.rise,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.is_healthy = Some(is_pass);
        self.is_healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall_count_results_in_a_row() {
        let mut health = HealthCounter::new(2, 3);
        assert_eq!(health.on_result(true), Some(true));
        for is_pass in [false, false, true, false, false] {
            assert_eq!(health.on_result(is_pass), None);
        }
        assert_eq!(health.on_result(false), Some(false));
        for is_pass in [true, false, true] {
            assert_eq!(health.on_result(is_pass), None);
        }
        assert_eq!(health.on_result(true), Some(true));
    }

    #[test]
    fn the_first_result_decides() {
        assert_eq!(HealthCounter::new(9, 9).on_result(false), Some(false));
    }
}
