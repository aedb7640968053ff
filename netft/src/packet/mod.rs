//! Inner IP packets: pure byte work for the packet path.
