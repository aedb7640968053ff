//! Acknowledgements: which session counters arrived. Pure.
