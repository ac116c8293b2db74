//! The services over a real connection, with a member that has no log.
