//! Whether a firewall lets RoCE's packets in. Only hints: rules can be written in many ways.

use super::super::finding::Finding;
use super::super::ports::Port;
use crate::host::Host;

const CHECK: &str = "firewall";
/// UDP port of RoCE v2 (IBTA annex A17).
const PORT: &str = "4791";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let has_roce = |port: &Port| port.is_roce && port.gids.iter().any(|gid| gid.kind != "IB/RoCE v1");
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
    let rules = Rule::all(&rules);
    let about: Vec<_> = rules.iter().filter(|rule| rule.is_about_port()).collect();
    vec![if let Some(rule) = first_that_binds(&about) {
        Finding::problem(CHECK, format!("a rule refuses UDP port {PORT}: {}", rule.text), why).fix(rule.remedy())
    } else if !about.is_empty() {
        Finding::ok(CHECK, format!("rules name UDP port {PORT}, and none refuses it"))
    } else if let Some(policy) = rules.iter().find(|rule| rule.drops_by_default()) {
        let what = format!("what no rule names is dropped, and none names UDP port {PORT}");
        Finding::unknown(CHECK, what, why).fix(policy.remedy())
    } else {
        Finding::ok(CHECK, format!("no rule names UDP port {PORT}, and what no rule names comes in"))
    }]
}

/// The first rule that refuses and is come to: whoever is let in by a rule of the same chain never comes to those behind it.
fn first_that_binds<'r, 'a>(rules: &[&'r Rule<'a>]) -> Option<&'r Rule<'a>> {
    let lets_in = |before: &[&Rule<'_>], rule: &Rule<'_>| {
        before.iter().any(|other| other.accepts_all() && other.chain() == rule.chain())
    };
    let binds = |at: &usize| rules[*at].refuses() && !lets_in(&rules[..*at], rules[*at]);
    (0..rules.len()).find(binds).map(|at| rules[at])
}

/// A line of what `nft list ruleset` or `iptables-save` says.
#[derive(Debug)]
struct Rule<'a> {
    text: &'a str,
    /// The table and the chain that it is in, as nft names them; none of iptables.
    place: Option<(&'a str, &'a str)>,
}

impl<'a> Rule<'a> {
    fn all(text: &'a str) -> Vec<Self> {
        let (mut table, mut chain) = (None, "");
        let rule = |line: &'a str| {
            let line = line.trim();
            if let Some(name) = line.strip_prefix("table ") {
                table = Some(name.trim_end_matches(['{', ' ']));
            } else if let Some(name) = line.strip_prefix("chain ") {
                chain = name.trim_end_matches(['{', ' ']);
            } else if line.starts_with('*') {
                // iptables-save begins a table.
                table = None;
            }
            Self { text: line, place: table.map(|table| (table, chain)) }
        };
        text.lines().map(rule).collect()
    }

    fn is_about_port(&self) -> bool {
        let is_it = |digits: &str| digits == PORT;
        self.text.contains("dport") && self.text.split(|letter: char| !letter.is_ascii_digit()).any(is_it)
    }

    fn refuses(&self) -> bool {
        let text = self.text.to_lowercase();
        text.contains("drop") || text.contains("reject")
    }

    /// Whether it lets in all that goes to the port, whoever it comes from.
    fn accepts_all(&self) -> bool {
        let text = self.text.replace(" -m udp", "");
        text == format!("udp dport {PORT} accept")
            || text == format!("-A {} -p udp --dport {PORT} -j ACCEPT", self.chain().1)
    }

    /// Table and chain; of iptables the chain alone, which follows `-A` or `:`.
    fn chain(&self) -> (Option<&'a str>, &'a str) {
        match self.place {
            Some((table, chain)) => (Some(table), chain),
            None => {
                let mut words = self.text.trim_start_matches("-A ").trim_start_matches(':').split_whitespace();
                (None, words.next().unwrap_or("INPUT"))
            }
        }
    }

    /// Whether it says that what comes in is dropped if no rule names it.
    fn drops_by_default(&self) -> bool {
        let text = self.text.to_lowercase();
        (text.contains("hook input") && text.contains("policy drop")) || text.starts_with(":input drop")
    }

    /// The command that lets packets in before this rule is looked at.
    fn remedy(&self) -> String {
        match self.place {
            Some((table, chain)) => format!("nft insert rule {table} {chain} udp dport {PORT} accept"),
            None => format!("iptables -I {} -p udp --dport {PORT} -j ACCEPT", self.chain().1),
        }
    }
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
        host.firewall = || Ok("table ip f {\n chain in {\n  udp dport { 53, 4791 } drop\n }\n}\n".to_owned());
        let findings = check(&host);
        assert!(only(&findings, Level::Problem).what.ends_with(": udp dport { 53, 4791 } drop"));
        assert_eq!(mended_by(&findings), "nft insert rule ip f in udp dport 4791 accept");
        host.firewall = || Ok("table ip f {\n}\n*filter\n-A INPUT -p udp -m udp --dport 4791 -j REJECT\n".to_owned());
        assert_eq!(mended_by(&check(&host)), "iptables -I INPUT -p udp --dport 4791 -j ACCEPT");
        host.firewall = || Ok(":INPUT DROP [0:0]\n-A INPUT -p udp --dport 4791 -j ACCEPT\n".to_owned());
        assert!(is_well(&check(&host)));
        host.firewall = || Ok("-A INPUT -p udp --dport 47910 -j DROP\n".to_owned());
        assert!(is_well(&check(&host)), "another port");
    }

    #[test]
    fn a_rule_that_is_not_come_to_is_no_problem() {
        let mut host = Fixture::with_device();
        host.firewall =
            || Ok("table ip f {\n chain in {\n  udp dport 4791 accept\n  udp dport 4791 drop\n }\n}\n".to_owned());
        assert!(is_well(&check(&host)), "as after the remedy");
        host.firewall = || {
            Ok("-A INPUT -p udp -m udp --dport 4791 -j ACCEPT\n-A INPUT -p udp -m udp --dport 4791 -j DROP\n"
                .to_owned())
        };
        assert!(is_well(&check(&host)), "as after the remedy");
        host.firewall = || {
            Ok("table ip f {\n chain in {\n  ip saddr 192.0.2.9 udp dport 4791 accept\n  udp dport 4791 drop\n }\n}\n"
                .to_owned())
        };
        assert!(!is_well(&check(&host)), "one host is let in, and no other");
        host.firewall =
            || Ok("-A INPUT -p udp --dport 4791 -j ACCEPT\n-A OUTPUT -p udp --dport 4791 -j DROP\n".to_owned());
        assert_eq!(mended_by(&check(&host)), "iptables -I OUTPUT -p udp --dport 4791 -j ACCEPT");
    }

    #[test]
    fn what_cannot_be_known_is_not_claimed() {
        let mut host = Fixture::with_device();
        host.firewall = || Err("not root".to_owned());
        assert!(only(&check(&host), Level::Unknown).what.contains("not root"));
        host.firewall = || Ok(":INPUT DROP [0:0]\n".to_owned());
        assert!(only(&check(&host), Level::Unknown).what.starts_with("what no rule names is dropped"));
        host.firewall =
            || Ok("table inet f {\n chain i {\n  type filter hook input priority 0; policy drop;\n }\n}".to_owned());
        let fix = only(&check(&host), Level::Unknown).fix.clone();
        assert_eq!(fix.as_deref(), Some("nft insert rule inet f i udp dport 4791 accept"));
        assert!(check(&Fixture::without_device()).is_empty());
    }
}
