//! `netft tune`: what is set beside what the measurements allow.

use super::{screens::busy, *};

#[test]
fn routes_over_the_budget_get_a_threshold_that_keeps_to_it() {
    let daemon = Daemon::new(busy());
    let shown = daemon.shows(&["tune"]);
    assert!(shown.contains("smallest for the budget"), "{shown}");
    let report: Value = serde_json::from_str(&daemon.shows(&["--json", "tune"])).unwrap();
    assert_eq!(report["false_alarms_per_year"], 1.0);
    for row in report["routes"].as_array().unwrap() {
        let is_over = row["false_alarms_per_year"].as_f64().unwrap() > 1.0;
        let (set, smallest) = (row["threshold"].as_u64(), row["smallest_threshold"].as_u64());
        assert_eq!(is_over, smallest.is_none_or(|smallest| Some(smallest) > set), "{row}");
        let remedy = smallest.map_or_else(
            || format!("route {}: it loses too much", row["id"]),
            |smallest| format!("netft route set {} --threshold {smallest}", row["id"]),
        );
        assert_eq!(shown.contains(&remedy), is_over, "{shown}");
    }
    // A smaller budget takes a larger threshold.
    let strict = daemon.shows(&["--json", "tune", "--false-alarms", "0.000001"]);
    let strict: Value = serde_json::from_str(&strict).unwrap();
    let of = |report: &Value| report["routes"][0]["smallest_threshold"].as_u64().unwrap();
    assert!(of(&strict) > of(&report), "{strict}");
    for wrong in ["0", "-1", "often", "inf"] {
        let refused = daemon.netft(&["tune", &format!("--false-alarms={wrong}")]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--false-alarms"), "{refused:?}");
    }
}
