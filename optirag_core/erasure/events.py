"""A user's events leave the log; the others keep their segments and places, and no event_id can be used again."""

from concurrent.futures import ThreadPoolExecutor

from optirag_core.events.event_log import READERS
from optirag_core.events.segments import segment_count, segment_file, segment_without
from optirag_core.storage.base import Storage


def erase_events(storage: Storage, user_id: str) -> int:
    """Replace the user's events by tombstones, segment by segment, each in one write.

    Processes that have read a segment do not read it again: they know of the events until they end.

    Returns:
        The number of events.

    Raises:
        ArtifactCorrupt: a segment is damaged or missing.
    """

    def erase(number: int) -> int:
        content = storage.read(segment_file(number)) or b""
        left, count = segment_without(content, number, user_id)
        if count:
            storage.write(segment_file(number), left)
        return count

    with ThreadPoolExecutor(READERS) as threads:
        return sum(threads.map(erase, range(segment_count(storage))))
