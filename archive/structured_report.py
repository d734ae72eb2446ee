"""The answer as a Structured Report by TID 1500: the class with its probabilities, the gate, what was measured."""

from collections.abc import Iterable
from datetime import datetime

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from archive import codes as concepts
from archive.base import MAKER, Device, device_of, finish, images, series
from diagnosis import gate
from diagnosis.anatomy.measures import MEASURES, Value
from diagnosis.diagnoser import VERSION, Diagnosis
from reports.wording import Texts
from studies import NOTICE


def structured_report(diagnosis: Diagnosis, at: datetime) -> Dataset:
    device, evidence = device_of(diagnosis), images(diagnosis)
    groups = [answer(diagnosis, evidence)]
    if diagnosis.measures:
        groups.append(measured(diagnosis, diagnosis.measures, evidence))
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer(device)),
        procedure_reported=procedure(diagnosis),
        imaging_measurements=groups,
    )
    made = sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        is_complete=True,
        coding_schemes=[concepts.scheme()],
        **series("report", device),
    )
    return finish(made, "report", diagnosis, at)


def observer(device: Device) -> sr.ObserverContext:
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=device.uid,
            name=MAKER,
            manufacturer_name=MAKER,
            model_name=device.model,
            serial_number=device.serial,
        ),
    )


def procedure(diagnosis: Diagnosis) -> Code:
    study = diagnosis.weights.study
    return (
        concepts.BRAIN_MRI
        if study.contract.kind == "volume"
        else Code(study.key[:16], concepts.OURS, study.title[: concepts.LONGEST])
    )


def answer(diagnosis: Diagnosis, evidence: list[Dataset]) -> sr.MeasurementsAndQualitativeEvaluations:
    """Class, set, probabilities and the gate's verdict; its reasons and the notice in words."""
    study = diagnosis.weights.study
    said = [sr.QualitativeEvaluation(concepts.FITNESS, concepts.VERDICTS[diagnosis.verdict])]
    numbers = []
    if diagnosis.label is not None and diagnosis.value is None:
        said.append(sr.QualitativeEvaluation(concepts.PREDICTED, concepts.class_code(study, diagnosis.label)))
        said += [
            sr.QualitativeEvaluation(concepts.IN_SET, concepts.class_code(study, code))
            for code in diagnosis.set or ()
        ]
        intervals = diagnosis.intervals or {}
        for code, chance in (diagnosis.probabilities or {}).items():
            ends = intervals.get(code)
            numbers.append(number(concepts.probability_code(study, code), chance, "1", *(ends or ())))
    if diagnosis.severity is not None:
        numbers.append(number(concepts.SEVERITY, diagnosis.severity, "1"))
    words = [NOTICE, *(finding.text for finding in diagnosis.findings)]
    if diagnosis.set:
        words.append(
            f"The prediction set was asked to hold the true class in {100 * diagnosis.level:g} % of cases."
        )
    if diagnosis.value is not None:
        words.append(Texts("en").line(diagnosis).splitlines()[0])
    if diagnosis.judged_anyway and diagnosis.verdict == gate.UNFIT:
        words.append("The class was asked for, whatever the gate says.")
    made = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(prefix=None), identifier="Answer"),
        algorithm_id=algorithm(f"{MAKER} {study.key}", diagnosis.weights.name, diagnosis.weights.sha256),
        measurements=numbers,
        qualitative_evaluations=said,
        source_images=sources(evidence),
    )
    add_words(made, words)
    return made


def measured(
    diagnosis: Diagnosis, measures: dict[str, Value], evidence: list[Dataset]
) -> sr.MeasurementsAndQualitativeEvaluations:
    """What was measured in the head, each value with the range that it lies in."""
    numbers = []
    for name, value in measures.items():
        title = MEASURES[name].title if name in MEASURES else name
        site, side = concepts.site_of(name)
        found = number(
            concepts.measure_code(name, title), value.value, value.unit, value.low, value.high, site, side
        )
        numbers.append(found)
    by = diagnosis.segmenter
    known = (by.name, by.sha256) if by is not None else ("", "")
    made = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(prefix=None), identifier="Measures"),
        algorithm_id=algorithm(f"{MAKER} segmenter", *known),
        measurements=numbers,
        source_images=sources(evidence),
    )
    add_words(made, [NOTICE, "Grades are computed from volumes; no reader gave them."])
    return made


def number(
    name: Code | sr.CodedConcept,
    value: float,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    site: Code | None = None,
    side: Code | None = None,
) -> sr.Measurement:
    """A number with how far it may lie below and above, in its own unit."""
    properties = None
    if low is not None and high is not None:
        properties = sr.MeasurementProperties(
            upper_measurement_uncertainty=float(high - value), lower_measurement_uncertainty=float(value - low)
        )
        for item in properties:  # highdicom gives every uncertainty "no units"
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [
                sr.CodedConcept.from_code(concepts.UNITS[unit])
            ]
    sites = [sr.FindingSite(anatomic_location=site, laterality=side)] if site is not None else None
    return sr.Measurement(name, float(value), concepts.UNITS[unit], finding_sites=sites, properties=properties)


def algorithm(name: str, weights: str, sha256: str) -> sr.AlgorithmIdentification:
    parameters = [f"weights {weights}", f"sha256 {sha256}"] if sha256 else None
    return sr.AlgorithmIdentification(name=name, version=VERSION, parameters=parameters, manufacturer=MAKER)


def sources(evidence: list[Dataset]) -> list[sr.SourceImageForMeasurementGroup]:
    return [sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID) for image in evidence]


def add_words(group: sr.MeasurementsAndQualitativeEvaluations, words: Iterable[str]) -> None:
    """Sentences at the end of a group, which the template leaves room for."""
    for text in words:
        group[0].ContentSequence.append(
            sr.TextContentItem(
                name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
            )
        )
