//! Drills: the request → the order, and the report → JSON.

use std::time::Duration;

use axum::http::StatusCode;
use netft::{
    RouteId,
    api::drill::{
        DrillError, DrillFault, DrillObjective, DrillOrder, DrillRefusal, DrillReport, DrillStatus,
        DrillTarget, DrillVerdict, DrilledRoute,
    },
};

use super::{
    convert::{PeerNames, abort_text, saturating_micros, saturating_millis},
    schema::{DrillRequest, DrillVerdictView, DrillView, DrilledRouteView, ObjectiveView},
};

/// The order for the node.
///
/// # Errors
/// The request names no target or several, or an unknown fault.
pub fn to_drill_order(request: &DrillRequest) -> Result<DrillOrder, String> {
    let target = match (request.route, &request.network, &request.interface) {
        (Some(id), None, None) => DrillTarget::Route(RouteId(id)),
        (None, Some(prefix), None) => {
            let prefix = prefix.parse().map_err(|_| "a network is a prefix such as 10.1.0.0/24")?;
            DrillTarget::Network(prefix)
        }
        (None, None, Some(name)) => DrillTarget::Interface(name.clone()),
        _ => return Err("give one of route, network and interface".to_owned()),
    };
    let length = Duration::from_millis(request.length_ms);
    let fault = match (request.fault.as_str(), request.percent, request.delay_ms) {
        ("blackhole", None, None) => DrillFault::Blackhole,
        ("one-way", None, None) => DrillFault::OneWay,
        ("carrier", None, None) => DrillFault::Carrier,
        ("loss", Some(percent), None) => DrillFault::Loss(percent),
        ("delay", None, Some(ms)) => DrillFault::Delay(Duration::from_millis(ms)),
        ("blackhole" | "one-way" | "carrier" | "loss" | "delay", ..) => {
            return Err(
                "percent is for loss, delay_ms for delay, and each needs its own".to_owned()
            );
        }
        _ => return Err("a fault is blackhole, one-way, loss, carrier or delay".to_owned()),
    };
    Ok(DrillOrder { target, fault, length })
}

/// HTTP status of a refusal.
pub(super) fn error_code(error: &DrillError) -> StatusCode {
    match error {
        DrillError::Route(_) | DrillError::Sockets(_) => StatusCode::SERVICE_UNAVAILABLE,
        DrillError::CutsOff { .. } => StatusCode::CONFLICT,
        DrillError::Refused(refusal) => match refusal {
            DrillRefusal::Running | DrillRefusal::NotUp(_) | DrillRefusal::CutsOff(_) => {
                StatusCode::CONFLICT
            }
            DrillRefusal::NothingThere(_) => StatusCode::NOT_FOUND,
            DrillRefusal::Length
            | DrillRefusal::Loss
            | DrillRefusal::Delay
            | DrillRefusal::Relayed(_) => StatusCode::BAD_REQUEST,
        },
    }
}

/// A report in JSON, beside its objective.
pub fn to_drill_view(status: &DrillStatus, names: &PeerNames) -> DrillView {
    let DrillStatus { report, objective } = status;
    let DrillReport { order, outcome, cost, .. } = report;
    let verdict = objective.judge(report);
    DrillView {
        target: order.target.to_string(),
        fault: order.fault.to_string(),
        length_ms: saturating_millis(order.length),
        outcome: outcome.as_str().to_owned(),
        reason: abort_text(*outcome, names),
        lasted_ms: saturating_millis(report.lasted),
        routes: report.routes.iter().map(|route| to_route_view(route, names)).collect(),
        detection_us: report.detection().map(saturating_micros),
        stall_us: cost.stall.map(|stall| saturating_micros(stall.length)),
        stall_by: cost.stall.map(|stall| stall.source),
        resent: cost.resent,
        duplicated: cost.duplicated,
        lost: cost.lost,
        dropped: report.dropped,
        recovered: report.is_recovered(),
        objective: to_objective_view(*objective),
        verdict: to_verdict_view(verdict),
    }
}

fn to_route_view(route: &DrilledRoute, names: &PeerNames) -> DrilledRouteView {
    DrilledRouteView {
        route: route.route.0,
        peer: names.name_of(route.peer),
        was_up: route.was_up,
        detection_us: route.detection.map(saturating_micros),
        sign: route.sign.map(|sign| sign.as_str().to_owned()),
        recovery_us: route.recovery.map(saturating_micros),
    }
}

fn to_objective_view(objective: DrillObjective) -> ObjectiveView {
    let DrillObjective { detection, stall, lost } = objective;
    ObjectiveView {
        detection_ms: detection.map(saturating_millis),
        stall_ms: stall.map(saturating_millis),
        lost,
    }
}

fn to_verdict_view(verdict: DrillVerdict) -> DrillVerdictView {
    let DrillVerdict { detection, stall, lost } = verdict;
    DrillVerdictView { detection, stall, lost, met: verdict.is_met() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request(text: &str) -> Result<DrillOrder, String> {
        to_drill_order(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_request_is_one_target_and_one_fault() {
        let order =
            request(r#"{"network":"10.1.0.0/24","fault":"loss","percent":5,"length_ms":5000}"#);
        let order = order.unwrap();
        assert_eq!(order.target, DrillTarget::Network("10.1.0.0/24".parse().unwrap()));
        assert_eq!(order.fault, DrillFault::Loss(5));
        assert_eq!(order.length, Duration::from_secs(5));
        for wrong in [
            r#"{"fault":"blackhole","length_ms":5000}"#,
            r#"{"route":1,"interface":"eth0","fault":"blackhole","length_ms":5000}"#,
            r#"{"route":1,"fault":"smoke","length_ms":5000}"#,
            r#"{"route":1,"fault":"loss","length_ms":5000}"#,
            r#"{"route":1,"fault":"carrier","percent":5,"length_ms":5000}"#,
            r#"{"network":"eth0","fault":"blackhole","length_ms":5000}"#,
        ] {
            assert!(request(wrong).is_err(), "{wrong}");
        }
    }
}
