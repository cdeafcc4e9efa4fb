"""The instances of each study together, as far as they could be scanned."""

import apache_beam as beam

from transforms.records import Planned


class GroupByStudy(beam.PTransform):
    """(study token, all its instances); what couldn't be scanned is of no study."""

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection:
        return (
            planned
            | "Scanned ones" >> beam.Filter(_has_study)
            | "Key by study" >> beam.WithKeys(_study_token).with_output_types(tuple[str, Planned])
            | "Group by study" >> beam.GroupByKey()
        )


def _has_study(planned: Planned) -> bool:
    return bool(planned.scan)


def _study_token(planned: Planned) -> str:
    return planned.study_token
