"""The clauses that an audit report answers: what each asks for, which findings of ours are evidence, what stays the organisation's duty.

Data and nothing else. A clause is in the reader's words, not the law's text; the names in `shown_by` are keys of `findings.FINDINGS`.
Sources: UAE Federal Decree-Law 45 of 2021; Regulation (EU) 2016/679 (GDPR); Regulation (EU) 2024/1689 (AI Act), Annex IV; ISO/IEC
27001:2022, Annex A; NIST SP 800-207, section 2.1; NIST AI 100-1 (AI RMF 1.0); DIFC Law 5 of 2020 and its Regulations, with Regulation
10 of 2023; ADGM Data Protection Regulations 2021; Saudi Royal Decree M/19 of 2021 as amended by M/148 of 2023. Numbers and headings of
the UAE's and ADGM's, of KSA's articles 4, 11, 18, 29 and 31 and of Regulation 10 were compared with published texts on 2026-11-26; no
lawyer has read this table.
"""

from __future__ import annotations

from dataclasses import dataclass

UAE, GDPR, AI_ACT = "UAE PDPL (Federal Decree-Law 45/2021)", "GDPR (EU 2016/679)", "EU AI Act, Annex IV"
ISO, ZERO_TRUST, AI_RMF = "ISO/IEC 27001:2022, Annex A", "NIST SP 800-207, tenets", "NIST AI RMF 1.0"
DIFC, ADGM, KSA = "DIFC Data Protection Law 5/2020", "ADGM Data Protection Regulations 2021", "KSA PDPL (M/19, M/148)"


@dataclass(frozen=True)
class Clause:
    """One clause: `shown_by` names findings that are evidence for it, `duty` is what no software can show."""

    law: str
    clause: str
    asks: str
    shown_by: tuple[str, ...]
    duty: str


CLAUSES = (
    Clause(UAE, "Art. 5", "Purpose, minimisation, accuracy, storage limit, security of processing",
           ("purpose", "minimisation", "quality", "retention", "encryption"), "A lawful ground, and that the purpose is the real one"),
    Clause(UAE, "Art. 7", "Technical measures by the controller, and a record of processing",
           ("purpose", "protection", "log"), "Contacts of controller and officer, recipients, processors"),
    Clause(UAE, "Art. 9", "Breaches are reported to the Data Office", ("incidents",), "Judging what is a breach, and reporting it in time"),
    Clause(UAE, "Art. 13", "The subject may obtain information", ("access",), "Checking who asks, answering in time"),
    Clause(UAE, "Art. 15", "Correction and erasure", ("erasure",), "Checking who asks; copies outside of the platform"),
    Clause(UAE, "Art. 18", "Objection to decisions that follow from automated processing alone", ("oversight", "reasons"),
           "Whether a person decides, and how to object"),
    Clause(UAE, "Art. 20", "Security: encryption, pseudonyms, integrity, tests of it", ("encryption", "protection", "integrity"),
           "Security of machines, buildings and people"),
    Clause(UAE, "Art. 21", "Assessment of impact", ("purpose", "groups"), "The assessment itself"),
    Clause(UAE, "Art. 22 and 23", "Transfer across the border", ("residency",), "Adequacy of the other state, contracts"),
    Clause(GDPR, "Art. 5", "Principles: purpose, minimisation, accuracy, storage limit, integrity, accountability",
           ("purpose", "minimisation", "quality", "retention", "encryption", "log"), "A lawful ground, fairness, telling the subjects"),
    Clause(GDPR, "Art. 15", "Access of the subject", ("access",), "Checking who asks, answering within a month"),
    Clause(GDPR, "Art. 17", "Erasure", ("erasure", "retention"), "Checking who asks and whether an exception holds; copies outside"),
    Clause(GDPR, "Art. 22", "Automated decisions: a human's part, an explanation", ("oversight", "reasons"),
           "Whether the decision has legal or like effect, and who reviews it"),
    Clause(GDPR, "Art. 25", "Data protection by design and by default", ("minimisation", "protection", "anonymity"),
           "Weighing risk against the state of the art"),
    Clause(GDPR, "Art. 30", "Record of processing", ("purpose", "protection", "retention", "residency"),
           "Contacts, categories of subjects and recipients"),
    Clause(GDPR, "Art. 32", "Security of processing", ("encryption", "protection", "integrity", "rollout"),
           "Security of machines, buildings and people; regular tests"),
    Clause(GDPR, "Art. 35", "Assessment of impact", ("purpose", "groups", "anonymity"), "The assessment itself, consulting the authority"),
    Clause(AI_ACT, "1", "General description: purpose, version, who provides it", ("purpose", "versions"),
           "Provider's name, instructions for use"),
    Clause(AI_ACT, "2", "Development: data, design, training, validation, oversight, cybersecurity",
           ("data", "training", "metrics", "candidates", "oversight", "integrity"), "Rationale of the design, labelling of the source"),
    Clause(AI_ACT, "3", "Monitoring, functioning, control; accuracy for groups of persons", ("metrics", "groups", "drift"),
           "Foreseeable harm, and to whom"),
    Clause(AI_ACT, "4", "Why these metrics", ("gates",), "The reasons for the bounds"),
    Clause(AI_ACT, "5", "Risk management", (), "The risk management system of article 9"),
    Clause(AI_ACT, "6", "Changes over the lifecycle", ("versions", "log"), "Whether a change is a substantial one"),
    Clause(AI_ACT, "7", "Harmonised standards applied", (), "The list"),
    Clause(AI_ACT, "8", "EU declaration of conformity", (), "The declaration"),
    Clause(AI_ACT, "9", "Monitoring after placing on the market", ("drift", "incidents"), "The plan of article 72, serious incidents"),
    Clause(ISO, "5.15, 8.3", "Access control and restriction", ("denials", "actors"), "Who is given which role, and regular review"),
    Clause(ISO, "5.28, 5.33", "Evidence collected, records protected", ("log",), "A checkpoint of the log kept on another machine"),
    Clause(ISO, "5.34", "Privacy and personal data", ("protection", "residency"), "A policy, and people who know it"),
    Clause(ISO, "8.8", "Technical vulnerabilities", ("components",), "Watching advisories, and patching"),
    Clause(ISO, "8.10", "Information deletion", ("retention", "erasure"), "Backups and paper"),
    Clause(ISO, "8.11", "Data masking", ("protection", "anonymity"), "Whether the masking fits the risk"),
    Clause(ISO, "8.15, 8.16", "Logging and monitoring", ("log", "drift", "incidents"), "People who look"),
    Clause(ISO, "8.24", "Cryptography", ("encryption", "integrity"), "Keeping the keys apart from the data"),
    Clause(ISO, "8.32", "Change management", ("versions", "gates", "approvals"), "Review of declarations before they are merged"),
    Clause(ZERO_TRUST, "1", "Data and services are resources", ("data",), "An inventory beyond this platform"),
    Clause(ZERO_TRUST, "2", "Communication is secured wherever it is", (), "TLS between machines"),
    Clause(ZERO_TRUST, "3, 4, 6", "Access a session, by policy, after authentication", ("denials", "actors"), "Identity provider, roles"),
    Clause(ZERO_TRUST, "5", "Integrity of assets is measured", ("integrity",), "Posture of machines"),
    Clause(ZERO_TRUST, "7", "State is collected and used to improve", ("log", "drift", "incidents"), "Acting on it"),
    Clause(AI_RMF, "MAP 1.1", "Intended purpose and context are understood", ("purpose",), "The context itself, affected people"),
    Clause(AI_RMF, "MEASURE 2.3", "Performance is shown for conditions like production's", ("metrics", "rollout"), "Choice of conditions"),
    Clause(AI_RMF, "MEASURE 2.4", "Behaviour in production is monitored", ("drift",), "Acting on it"),
    Clause(AI_RMF, "MEASURE 2.7", "Security and resilience are evaluated", ("integrity", "incidents"), "Red teams"),
    Clause(AI_RMF, "MEASURE 2.9", "The model is explained", ("reasons",), "That explanations help those who get them"),
    Clause(AI_RMF, "MEASURE 2.10", "Privacy risk is examined", ("protection", "anonymity"), "Weighing it"),
    Clause(AI_RMF, "MEASURE 2.11", "Fairness and bias are evaluated", ("groups",), "Which groups matter, and what is fair"),
    Clause(AI_RMF, "MANAGE 2.4", "Systems can be superseded or switched off", ("versions", "oversight"), "Who may, and when"),
    Clause(AI_RMF, "MANAGE 4.1", "Monitoring after deployment, change management", ("drift", "versions", "approvals"),
           "A plan, and people"),
    Clause(DIFC, "Art. 9", "Principles of processing", ("purpose", "minimisation", "quality", "retention"), "A lawful ground, fairness"),
    Clause(DIFC, "Art. 14", "Accountability, measures by design", ("protection", "encryption"), "Notifying the Commissioner"),
    Clause(DIFC, "Art. 15", "Records of processing", ("purpose", "protection", "residency"), "Contacts, recipients"),
    Clause(DIFC, "Art. 20", "Assessment of impact", ("purpose", "groups"), "The assessment itself"),
    Clause(DIFC, "Art. 26 and 27", "Transfers out of the DIFC", ("residency",), "Adequacy, contracts"),
    Clause(DIFC, "Art. 33", "Access, rectification, erasure", ("access", "erasure"), "Checking who asks, answering in time"),
    Clause(DIFC, "Art. 38", "Automated decisions", ("oversight", "reasons"), "A person's review"),
    Clause(DIFC, "Regulation 10", "Autonomous systems: purposes that people define, fair design, outputs that can be explained, a register",
           ("purpose", "data", "groups", "oversight", "reasons", "versions"),
           "Notice to the subjects, an officer where risk is high, certification"),
    Clause(DIFC, "Art. 41", "Breaches are notified", ("incidents",), "Judging and notifying them"),
    Clause(ADGM, "Part II", "Principles of processing", ("purpose", "minimisation", "quality", "retention"), "A lawful ground, fairness"),
    Clause(ADGM, "Part III", "Rights: access, erasure, automated decisions", ("access", "erasure", "oversight"), "Checking who asks"),
    Clause(ADGM, "Part IV", "Design, records, security, assessment of impact", ("protection", "encryption", "log", "purpose"),
           "Contacts, the assessment itself, notifying breaches"),
    Clause(ADGM, "Part V", "Transfers out of ADGM", ("residency",), "Adequacy, contracts"),
    Clause(KSA, "Art. 4", "Rights: to know, access, correct, destroy", ("access", "erasure"), "Checking who asks, answering in time"),
    Clause(KSA, "Art. 11", "Purpose and minimum", ("purpose", "minimisation"), "That the means of collection are lawful"),
    Clause(KSA, "Art. 18", "Destroyed once the purpose is met", ("retention", "erasure"), "Saying when it is met"),
    Clause(KSA, "Art. 19", "Organisational and technical measures", ("encryption", "protection", "integrity"),
           "Measures outside of the platform"),
    Clause(KSA, "Art. 20", "Breaches are notified", ("incidents",), "Judging and notifying them"),
    Clause(KSA, "Art. 22", "Assessment of impact", ("purpose", "groups"), "The assessment itself"),
    Clause(KSA, "Art. 29", "Transfer out of the Kingdom", ("residency",), "Conditions of the transfer"),
    Clause(KSA, "Art. 31", "Records of processing", ("purpose", "protection", "retention", "residency"), "Contacts, recipients"),
)  # fmt: skip
