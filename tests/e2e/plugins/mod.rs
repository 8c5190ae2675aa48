//! Plugins: found, loaded, checked against their laws, refused.

mod abi_versions;
mod backend_laws;
mod crash_while_loading;
mod discovery;
mod failed_starts;
mod notes;
mod objective_laws;
mod odd;
mod ppo;
mod preferences;
mod refused_results;
