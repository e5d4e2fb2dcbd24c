"""Package metadata, read from settings.ini: names, versions and requirements stand there alone."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

here = Path(__file__).parent
settings = ConfigParser(delimiters=['='], inline_comment_prefixes=None)
settings.read(here / 'settings.ini', encoding='utf-8')
cfg = settings['DEFAULT']

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(here / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    url=cfg['git_url'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Natural Language :: English',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(11, 15)),
    ],
    keywords=cfg['keywords'].split(),
    packages=find_namespace_packages(include=['domain_llm', 'domain_llm.*']),
    include_package_data=True,
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={
        'hf': cfg['hf_requirements'].split(),
        'course': cfg['course_requirements'].split(),
        'dev': cfg['dev_requirements'].split(),
    },
    entry_points={'console_scripts': cfg['console_scripts'].split()},
    zip_safe=False,
)
