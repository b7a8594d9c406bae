//! Named cases in virtual time.
