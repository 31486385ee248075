"""Settings: environment files and the environment, validated together before anything is contacted.

`load` is the entry: the commands call it. `Settings` are the values in force; `Loaded` adds the origin of each.

- `fields` declares the settings with their defaults, `database_url` validates the URL of the database.
- `env_files` and `secret_files` read files. `kubernetes` recognizes variables that Kubernetes sets for Services.
- `values` removes what surrounds a value and refuses invisible characters. `names` finds misspelled names.
- `load` combines them and reports every problem with the texts of `problems`. `display` hides secrets.
"""

from syncd.settings.display import shown
from syncd.settings.fields import CREDENTIALS, FROM_FILES, Settings
from syncd.settings.load import Loaded, load
from syncd.settings.secret_files import read_secret

__all__ = ["CREDENTIALS", "FROM_FILES", "Loaded", "Settings", "load", "read_secret", "shown"]
