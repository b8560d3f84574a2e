"""A device at a bedside, for a Raspberry Pi: plays through ALSA, and has each line spoken that is typed.

VOICECARE_URL and VOICECARE_TOKEN name the server and the device. An empty line interrupts. Ctrl-C ends.
"""

import asyncio
import os
import sys
from contextlib import closing

from voicecare_client import Device, DeviceError, find_player

FORMAT = "pcm_16000"


def show_connection(error: DeviceError | None) -> None:
    """Set a light here: a lost connection is nothing that a patient should hear."""
    print("Connected." if error is None else error, file=sys.stderr)


async def speak(device: Device, text: str) -> None:
    try:
        heard = await device.speak(text)
        print("Heard." if heard else "Interrupted.")
    except DeviceError as error:
        print(error, file=sys.stderr)


async def speak_lines(device: Device) -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    with closing(pipe):
        async with asyncio.TaskGroup() as speeches:
            async for line in lines:
                if text := line.decode().strip():
                    speeches.create_task(speak(device, text))
                else:
                    await device.interrupt()


async def main() -> None:
    url, token, player = os.environ["VOICECARE_URL"], os.environ["VOICECARE_TOKEN"], find_player(FORMAT)
    async with Device(url, token, player, format=FORMAT, on_connection=show_connection) as device:
        speaking = asyncio.create_task(speak_lines(device))
        try:
            await device.wait_until_given_up()
        finally:
            speaking.cancel()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except DeviceError as error:
        sys.exit(f"A person has to look at this device: {error}")
    except KeyboardInterrupt:
        pass
