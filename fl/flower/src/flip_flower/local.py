"""Trains a Flower app on a researcher's own machine: see `flip_apps.local`.

LOCAL_DEV=true DEV_DATAFRAME=cohort.csv DEV_IMAGES_DIR=images python -m flip_flower.local APP --work FOLDER
"""

from flip_apps.local import main

from flip_flower.trainer_script import load_app

if __name__ == "__main__":
    main("flower", load_app)
