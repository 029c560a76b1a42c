//! Read-only answers over any view of the state.
