"""SQLite files of rosbag2, of any version of its tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from vggt_ros.files.bags.storage import Channel, Lose, Storage, Stored, with_slash
from vggt_ros.files.errors import SequenceError, in_a_line

# ValueError: names, or what is wrong with them, that are no text.
ERRORS = (sqlite3.Error, ValueError)


class SqliteFile(Storage):
    """Opened to be read alone; a write-ahead log that a killed recorder left beside it is read as well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = self._open()
        except ERRORS as error:
            raise SequenceError(f'{path}: not a readable bag: {in_a_line(error)}') from error
        try:
            counts = dict(self._connection.execute('SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id'))
            topics = self._connection.execute('SELECT id, name, type, serialization_format FROM topics').fetchall()
        except ERRORS as error:
            self._connection.close()
            raise SequenceError(f'{path}: not a readable bag: {in_a_line(error)}') from error
        self.channels = [
            Channel(key, with_slash(name), kind, encoding, counts.get(key, 0))
            for key, name, kind, encoding in topics
            if all(isinstance(text, str) for text in (name, kind, encoding))
        ]

    def _open(self) -> sqlite3.Connection:
        # As an address, so that names with #, ? and % are names; and so that nothing is made where nothing is.
        address = f'file:{quote(str(self.path.absolute()))}'
        connection = sqlite3.connect(f'{address}?mode=ro', uri=True)
        try:
            connection.execute('SELECT name FROM sqlite_master').fetchall()
        except sqlite3.OperationalError:
            # A write-ahead log in a folder that cannot be written: without what is in it.
            connection.close()
            connection = sqlite3.connect(f'{address}?immutable=1', uri=True)
            if Path(f'{self.path}-wal').exists():
                self.notes = (f'{self.path.name}-wal is not read: the folder cannot be written',)
        return connection

    def close(self) -> None:
        self._connection.close()

    def messages(self, channels: Collection[Channel], lose: Lose) -> Iterator[Stored]:
        wanted = {channel.key: channel for channel in channels}
        marks = ','.join('?' * len(wanted))
        command = f'SELECT id, topic_id, timestamp FROM messages WHERE topic_id IN ({marks}) ORDER BY timestamp'
        rows = None
        while True:
            try:
                rows = rows or self._connection.execute(command, tuple(wanted))
                row = rows.fetchone()
            except ERRORS as error:
                lose(f'{self.path.name} is damaged, what follows is lost ({in_a_line(error)})')
                return
            if row is None:
                return
            number, key, time = row
            try:
                # One by one: a page that is damaged costs its own message.
                found = self._connection.execute('SELECT data FROM messages WHERE id = ?', (number,)).fetchone()
            except ERRORS as error:
                lose(f'{self.path.name}: message {number} is damaged ({in_a_line(error)})')
                continue
            if found is not None and isinstance(found[0], bytes):
                yield Stored(wanted[key], time, found[0])
