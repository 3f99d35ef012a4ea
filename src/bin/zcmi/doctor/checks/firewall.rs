//! Whether a firewall lets RoCE's packets in. Only hints: rules can be written in many ways.

use super::super::finding::Finding;
use super::super::ports::Port;
use crate::host::Host;

const CHECK: &str = "firewall";
/// UDP port of RoCE v2 (IBTA annex A17).
const PORT: &str = "4791";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let has_roce = |port: &Port| port.is_ethernet && port.gids.iter().any(|gid| gid.kind != "IB/RoCE v1");
    if !Port::all(host).iter().any(has_roce) {
        return Vec::new();
    }
    let why = "RoCE v2 goes through UDP port 4791; where it is dropped, connecting times out";
    let rules = match (host.firewall)() {
        Ok(rules) => rules,
        Err(error) => {
            let finding = Finding::unknown(CHECK, format!("the rules cannot be read: {error}"), why);
            return vec![finding.fix("sudo nft list ruleset; sudo iptables-save")];
        }
    };
    let is_nft = rules.lines().any(|line| line.trim_start().starts_with("table "));
    let open = if is_nft {
        "nft insert rule inet filter input udp dport 4791 accept"
    } else {
        "iptables -I INPUT -p udp --dport 4791 -j ACCEPT"
    };
    let about: Vec<_> = rules.lines().filter(|line| line.contains(PORT)).map(str::to_lowercase).collect();
    let is_refused = |line: &&String| line.contains("drop") || line.contains("reject");
    vec![match about.iter().find(is_refused) {
        Some(rule) => {
            Finding::problem(CHECK, format!("a rule refuses UDP port {PORT}: {}", rule.trim()), why).fix(open)
        }
        None if !about.is_empty() => Finding::ok(CHECK, format!("rules name UDP port {PORT}, and none refuses it")),
        None if drops_by_default(&rules) => {
            let what = format!("what no rule names is dropped, and none names UDP port {PORT}");
            Finding::unknown(CHECK, what, why).fix(open)
        }
        None => Finding::ok(CHECK, format!("no rule names UDP port {PORT}, and what no rule names comes in")),
    }]
}

/// Whether the policy for what comes in is to drop it.
fn drops_by_default(rules: &str) -> bool {
    let drops = |line: &str| {
        let line = line.trim().to_lowercase();
        (line.contains("hook input") && line.contains("policy drop")) || line.starts_with(":input drop")
    };
    rules.lines().any(drops)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by, only};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::host::fixture::Fixture;

    #[test]
    fn a_rule_that_refuses_is_shown() {
        let mut host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        host.firewall = || Ok("table inet filter {\n chain input {\n  udp dport 4791 drop\n }\n}\n".to_owned());
        let findings = check(&host);
        assert!(only(&findings, Level::Problem).what.ends_with(": udp dport 4791 drop"));
        assert!(mended_by(&findings).starts_with("nft insert"));
        host.firewall = || Ok("-A INPUT -p udp -m udp --dport 4791 -j REJECT\n".to_owned());
        assert!(mended_by(&check(&host)).starts_with("iptables -I"));
        host.firewall = || Ok(":INPUT DROP [0:0]\n-A INPUT -p udp --dport 4791 -j ACCEPT\n".to_owned());
        assert!(is_well(&check(&host)));
    }

    #[test]
    fn what_cannot_be_known_is_not_claimed() {
        let mut host = Fixture::with_device();
        host.firewall = || Err("not root".to_owned());
        assert!(only(&check(&host), Level::Unknown).what.contains("not root"));
        for rules in [
            "table inet f {\n chain i {\n  type filter hook input priority 0; policy drop;\n }\n}",
            ":INPUT DROP [0:0]",
        ] {
            assert!(drops_by_default(rules));
        }
        host.firewall = || Ok(":INPUT DROP [0:0]\n".to_owned());
        only(&check(&host), Level::Unknown);
        assert!(check(&Fixture::without_device()).is_empty());
    }
}
