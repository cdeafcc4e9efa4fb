"""Write the part of dicomveil's vocabulary that comes from PS3.16, judged by lists of names, and measure what leaks.

    extract_vocabulary.py write
    extract_vocabulary.py leaks

It needs the packages names (US census of 1990), names-dataset and faker, beside pydicom. What others wrote into
`dicomveil/tables/vocabulary.csv` by hand stays as it is: `write` only replaces the rows whose source is PS3.16. Of
those, a word that is a common name becomes "never", a rare name "beside"; what is judged otherwise moves to a row by
hand. `leaks` puts drawn names into descriptions and lists those that a vocabulary without identifiers would keep.
"""

import csv
import importlib
import pkgutil
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import faker.providers.person
import names
import names_dataset
from pydicom.sr._cid_dict import cid_concepts, name_for_cid
from pydicom.sr._concepts_dict import concepts

from dicomveil.vocabulary import NEVER, Vocabulary, fold, identifying_words

TABLE = Path(__file__).resolve().parent.parent / "dicomveil" / "tables" / "vocabulary.csv"
OURS = re.compile(
    "Anatom|Region|Site|View|Lateral|Modality|Contrast|Route|Radiopharm|Projection|Position|Orientation|Structure|Vessel"
    "|Artery|Vein|Vertebra|Nerve|Tract|Fiber|Lymph|Teeth|Tissue|Lead|Echo|Ultrasound|Mammo|Breast|Imag|Technique"
    "|Reconstruction|Acquisition|Phase|Scan|Perfusion|Diffusion|Radiotherapy|RT|Finding|Lesion|Morpholog|Stenosis|Calcif"
    "|Plaque|Phantom|Device|Filter|Grid|Detector|Material|Cardiac|Myocard|Ventric|Valve|Heart|Segment|Measurement"
    "|Procedure|Protocol|Dose|Fluoro|CT|PET|MR|Isotope|Radionuclide|Texture|Feature|Specimen|Stain|Ophthalm|Retina|Lens"
    "|Cornea|Endoscop|Bone|Spine|Organ|Stress|Rest|Collimat|Attenuation|Registration|Purpose|Modifier|Descriptor|Shape"
    "|Margin|Density|Severity|Transducer|Bolus|Agent|Flow|Property|Assessment|Pulse|Rhythm|Implant|Diagnosis|Disease"
    "|Nodule|Mass|Lung|Thorax|Chest|Abdom|Pelvi|Colon|Liver|Prostate|Brain|Catheter|Stent|Surg|Complication|Indication"
    "|Kinetic|Parameter|Model|Algorithm|Metabolite|Spectro|Unit|Method|Intent|Quality|Dental|Skin|Dermat"
)
"""The context groups whose words may stand in a description."""
NOT_OURS = re.compile(
    "Breed|Animal|Bedding|Country|Language|Race|Racial|Ethnic|Relig|Occupation|Person|Sex|Gender|Role|Organization"
    "|Registry|Family|Smoking|Social|Payor|Death|Admission|Reporter|Observer|Audit|Security|Virus|Toxin|Cytokine"
    "|Species|Taxon|Strain|Publication|EponymousName|Equation|Table|Author|Date|Authority|Medication|Drug|Anesthe"
    "|Premedication|Tolerance|Scor|Insurance|UID|Health|Certificat|Employ|Staff"
)
"""Those that speak of people, places and times, or whose meanings bear the names of their authors."""
POPULOUS = frozenset(
    """US GB IE CA AU NZ ZA DE AT CH FR BE NL LU ES MX AR CO CL PE IT PT BR SE NO DK FI PL CZ HU RO GR TR RU UA IN CN JP
    KR TW SG MY ID PH NG EG IL SA""".split()  # noqa: SIM905
)
LISTS = (  # (what a name is in a list, up to which rank it is common, up to which it's a name at all)
    ("surname, US census", 2500, 20000),
    ("given name, US census", 1000, 10000),
    ("name, faker", 1, 1),
    ("given name, names-dataset", 150, 2500),
    ("surname, names-dataset", 300, 3000),
)
TEMPLATES = (
    "CT HEAD {}", "{} T1 tse sag 3mm", "XR CHEST AP for {}", "MR Knee {} 3T", "{}", "Abdomen_{}_arterial", "thorax-{}",
    "US Doppler ({})", "Schädel nativ, {}", "{0}^{0}", "KNEE {} LT", "TAC de {}", "post op {} 120kV",
)  # fmt: skip


def census() -> Iterator[tuple[str, str, int]]:
    folder = Path(names.__file__).parent
    lists = (("dist.all.last", 0), ("dist.male.first", 1), ("dist.female.first", 1))
    for name, kind in lists:
        for line in (folder / name).read_text().splitlines():
            word, _, _, rank = line.split()
            yield word, LISTS[kind][0], int(rank)


def curated() -> Iterator[tuple[str, str, int]]:
    for module in pkgutil.iter_modules(faker.providers.person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        for attribute in vars(provider):
            if re.search("first_name|last_name|middle_name", attribute) and not re.search("format|pair", attribute):
                values = getattr(provider, attribute)
                for value in () if callable(values) or isinstance(values, property) else values:
                    name = value[0] if isinstance(value, tuple) else value
                    if isinstance(name, str):
                        yield from ((part, LISTS[2][0], 1) for part in re.split(r"[\s\-']", name) if len(part) > 1)


def world() -> Iterator[tuple[str, str, int]]:
    data = names_dataset.NameDataset()
    for kind, known in ((3, data.first_names), (4, data.last_names)):
        for name, facts in known.items():
            ranks = [rank for country, rank in facts["rank"].items() if rank and country in POPULOUS]
            if ranks and not re.search(r"[\s\-']", name):
                yield name, LISTS[kind][0], min(ranks)


def ranks() -> dict[str, dict[str, int]]:
    """The best rank of each name in each list, by the name's normal form."""
    found: dict[str, dict[str, int]] = {}
    for source in (census(), curated(), world()):
        for name, kind, rank in source:
            of_name = found.setdefault(fold(name), {})
            of_name[kind] = min(rank, of_name.get(kind, rank))
    return found


def judged(of_name: dict[str, int]) -> tuple[str, str]:
    """(treatment, why) of a word of the Standard, by its ranks as a name."""
    for treatment, column in (("never", 1), ("beside", 2)):
        for row in LISTS:
            if of_name.get(row[0], row[2] + 1) <= row[column]:  # type: ignore[operator]
                return treatment, row[0]
    return "", ""


def standard_words() -> set[str]:
    """The words of three letters or more in the meanings of the context groups that are ours."""
    found: set[str] = set()
    for cid, schemes in cid_concepts.items():
        title = name_for_cid.get(cid, "")
        if OURS.search(title) and not NOT_OURS.search(title):
            for scheme, keywords in schemes.items():
                for keyword in keywords:
                    for meaning, _ in concepts[scheme][keyword].values():
                        found.update(re.findall(r"[^\W\d_]{3,}", meaning.casefold()))
    return found


def write() -> None:
    with TABLE.open(newline="", encoding="utf-8") as lines:
        by_hand = {row["term"]: row for row in csv.DictReader(lines) if not row["source"].startswith("PS3.16")}
    there, known = {fold(term) for term in by_hand}, ranks()
    out = list(by_hand.values())
    for word in standard_words():
        if fold(word) not in there:
            treatment, why = judged(known.get(fold(word), {}))
            out.append({"term": word, "treatment": treatment, "source": "; ".join(filter(None, ("PS3.16", why)))})
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("term", "treatment", "source"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(out, key=lambda row: (row["term"], row["source"])))


def leaks(draws: int = 20000) -> None:
    """Names as often as they occur in the US census, and each name of the curated lists once."""
    weights: Counter[str] = Counter()
    for file in ("dist.all.last", "dist.male.first", "dist.female.first"):
        for line in (Path(names.__file__).parent / file).read_text().splitlines():
            weights[line.split()[0].title()] += round(1000 * float(line.split()[1]))
    drawn = random.Random(1).choices(list(weights), list(weights.values()), k=draws)
    vocabulary = Vocabulary()
    for title, people in (
        ("US census, by frequency", drawn),
        ("faker, each once", sorted({it[0] for it in curated()})),
    ):
        for identified in (False, True):
            survivors: Counter[str] = Counter()
            for at, name in enumerate(people):
                known = identifying_words("PN", name) if identified else set()
                template = TEMPLATES[at % len(TEMPLATES)]
                written = (name, name.upper())[at // len(TEMPLATES) % 2]
                kept = vocabulary.clean(template.format(written), known.__contains__)
                mere = vocabulary.clean(template.format("Xqzv"), known.__contains__)
                left = Counter(map(fold, re.findall(r"\w+", kept))) - Counter(map(fold, re.findall(r"\w+", mere)))
                survivors[name] += fold(name) in left
            count = sum(survivors.values())
            print(f"{title}, {'known' if identified else 'unknown'}: {count} of {len(people)} stay")
            print("  ", ", ".join(f"{name} {n}" for name, n in survivors.most_common(60) if n))
    print("never:", sum(1 for row in csv.DictReader(TABLE.open(encoding="utf-8")) if row["treatment"] == NEVER))


if __name__ == "__main__":
    {"write": write, "leaks": leaks}.get(sys.argv[1] if len(sys.argv) == 2 else "", lambda: sys.exit(__doc__))()
