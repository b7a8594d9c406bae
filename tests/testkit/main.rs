//! Users' services, actors and subscribers on several nodes in one process, in virtual time.
mod cache;
mod certificates;
mod cluster;
mod hour;
mod losses;
mod seeds;
mod shop;
