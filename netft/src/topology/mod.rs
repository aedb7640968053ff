//! Which routes should exist. Pure.
